"""What is told of a search, and the stopwatch that takes Immich's share of its time."""

from __future__ import annotations

import contextlib
from typing import get_args

import pytest

from immich_triton.web.account import Account, Outcome, Stopwatch


def test_the_stopwatch_counts_time_once_however_many_are_under_way() -> None:
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    with watch:
        now[0] = 1.0
        with watch:
            now[0] = 3.0
        now[0] = 4.0
    now[0] = 10.0
    assert watch.seconds == 4.0
    with contextlib.suppress(ValueError), watch:
        now[0] = 11.0
        raise ValueError
    assert watch.seconds == 5.0


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (Account(), ""),
        (Account("hybrid", "ranked", 1, 300, 120), "hybrid: 300 CLIP + 120 OCR → page 1"),
        (
            Account("text", "ranked", 2, None, 9, 4, "database"),
            "text: 9 OCR (4 by the database only) → page 2",
        ),
        (Account("hybrid", "kept", 3), "hybrid: list kept from page 1 → page 3"),
        (
            Account("hybrid", "picture_alone", 1, 300),
            "hybrid: 300 CLIP, the side of the text failed or took too long → page 1",
        ),
        (
            Account("hybrid", "text_alone", 1, None, 3),
            "hybrid: 3 OCR, the side of the picture failed or took too long → page 1",
        ),
        (Account("nothing", "empty"), "nothing: ocr: without words → page 1"),
        (Account("hybrid", "refused"), "hybrid: refused by Immich"),
        (Account("hybrid", "fault"), "hybrid: left to Immich, because of a fault here"),
    ],
)
def test_a_search_in_words(account: Account, words: str) -> None:
    assert account.in_words() == words


def test_there_are_words_for_every_outcome() -> None:
    said = {Account("hybrid", outcome, 1, 1, 1).in_words() for outcome in get_args(Outcome)}
    assert len(said) == len(get_args(Outcome)) - 1  # "stock" is no outcome of a search of ours, and reads as a fault
