"""Patterns that find a word in text as it was read, whatever its width, case or script. Pure.

A database cannot fold text the way `Chinese.fold` does, so the word is unfolded instead: each of its characters becomes
the class of all characters that fold to it. 台北 is ``[台臺檯颱][北]``, and ``exit`` is found as ``ＥＸＩＴ`` too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

RANGES: Final = (
    (0x0021, 0x007F),
    (0x2E80, 0x2FE0),  # radicals
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),  # compatibility ideographs
    (0xFF01, 0xFFE7),  # wide and half-wide forms
)
"""Characters, as half-open ranges, that may fold to another one."""

BETWEEN: Final = r"\s?"
"""What a reader may have put between two ideographs of a word: lines are read with gaps at times."""


def table(fold: Callable[[str], str]) -> dict[str, str]:
    """Return, for each character that others fold to, all these others. Takes some 20 ms."""
    characters = [chr(code) for first, end in RANGES for code in range(first, end)]
    folded = fold("\n".join(characters)).split("\n")
    variants: dict[str, str] = {}
    for character, to in zip(characters, folded, strict=True):
        if len(to) == 1 and to != character:
            variants[to] = variants.get(to, "") + character
    return variants


def spellings(character: str, variants: Mapping[str, str]) -> str:
    """Return the folded *character* and all that fold to it."""
    return character + variants.get(character, "")


def pattern(word: str, variants: Mapping[str, str]) -> str:
    """Return a regular expression of PostgreSQL (advanced, POSIX style) for the folded *word*."""
    parts: list[str] = []
    for at, character in enumerate(word):
        if character.isspace():
            parts.append(r"\s+")
            continue
        if at and _is_wide(character) and _is_wide(word[at - 1]):
            parts.append(BETWEEN)
        among = spellings(character, variants)
        parts.append(f"[{among}]" if among.isalnum() else f"(?:{'|'.join(map(_escaped, among))})")
    return "".join(parts)


def like(word: str, variants: Mapping[str, str]) -> str:
    """Return a pattern of LIKE for the folded *word*: its characters that are spelt in one way only, in order.

    It finds more than `pattern` does, in less time; nothing less.
    """
    alone = [character for character in word if not character.isspace() and len(spellings(character, variants)) == 1]
    return "%".join(["", *(f"\\{one}" if one in "%_\\" else one for one in alone), ""])


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _escaped(character: str) -> str:
    return rf"\{character}" if character.isascii() and re.match(r"[^0-9A-Za-z_]", character) else character
