"""Numbers with their nouns, for people."""

from __future__ import annotations


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: *one*, or *many* (*one* with an s)."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
