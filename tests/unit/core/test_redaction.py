"""What others say in their errors, without what they quote."""

from __future__ import annotations

import pytest
from disclosure import assert_absent, of_text

from immich_triton.core.redaction import redact, where

QUERY = "海边婚礼 wedding-kqzx 外婆"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("KeyError: '猫 cat'", "KeyError: '…'"),
        ("can't open file \"secret name", 'can\'t open file "…"'),
        (r"UnicodeDecodeError: b'\xe7\'x' in 3", "UnicodeDecodeError: '…' in 3"),
        ("token Lake or 湖 at the lake-side is \x00 unknown", "token … or … … … …-side is … unknown"),
        ("Parse error.\nresponse: wedding", "Parse error.…response: …"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_an_error_is_told_without_what_it_quotes(text: str, rest: str) -> None:
    assert redact(text, b"at the LAKE") == rest


def test_an_error_is_told_in_bounded_time_and_length() -> None:
    assert len(redact("x" * 10_000_000, b"y " * 1_000_000)) == 301
    assert len(redact("'" * 10_000_001)) <= 301


def test_an_unexpected_error_is_told_by_its_place() -> None:
    try:
        try:
            dict[str, str]()[QUERY]
        except KeyError as error:
            raise ValueError(QUERY) from error
    except ValueError as error:
        told = where(error)
    assert "builtins.ValueError" in told
    assert "builtins.KeyError" in told
    assert "test_redaction.py" in told
    assert_absent(of_text("the query", QUERY), {"the place": told.encode()})


def test_errors_that_are_each_others_cause_are_told_once() -> None:
    error, other = ValueError(QUERY), KeyError(QUERY)
    error.__cause__ = error
    assert where(error) == "builtins.ValueError"
    error.__cause__, other.__cause__ = other, error
    assert where(error).splitlines() == ["builtins.ValueError", "builtins.KeyError"]
    error.__cause__, error.__suppress_context__ = None, False
    error.__context__, other.__cause__, other.__context__ = other, None, error
    assert where(error).splitlines() == ["builtins.ValueError", "builtins.KeyError"]


def test_a_long_chain_of_causes_is_cut() -> None:
    error: Exception = ValueError()
    for _ in range(10_000):
        above = ValueError()
        above.__cause__ = error
        error = above
    assert len(where(error).splitlines()) <= 50
