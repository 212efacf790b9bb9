"""A number with its noun."""

from __future__ import annotations

import pytest

from immich_triton.core.counting import count


@pytest.mark.parametrize(("number", "text"), [(0, "0 errors"), (1, "1 error"), (2, "2 errors")])
def test_one_error_is_no_plural(number: int, text: str) -> None:
    assert count(number, "error") == text


def test_a_plural_of_its_own() -> None:
    assert [count(number, "box", "boxes") for number in (1, 2)] == ["1 box", "2 boxes"]
