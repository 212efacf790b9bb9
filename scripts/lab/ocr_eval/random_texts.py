"""Lines that say nothing: random characters, words and numbers of each writing, for pages unlike those of the exam."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from enum import StrEnum
from typing import Final


class Writing(StrEnum):
    """What a line is made of."""

    SIMPLIFIED = "simplified"
    TRADITIONAL = "traditional"
    JAPANESE = "japanese"
    LATIN = "latin"
    NUMBERS = "numbers"
    MIXED = "mixed"


def line(writing: Writing, rng: random.Random, most: int, *, bare: bool = False) -> str:
    """Return a line about as wide as *most* Chinese characters at most; Chinese and Japanese *bare* of punctuation."""
    # A third fill the room that there is.
    wide = most if rng.random() < 1 / 3 else rng.randint(min(4, most), most)
    if writing not in _CHARACTERS:
        return _OTHERS[writing](rng, wide)
    text = _CHARACTERS[writing](rng, wide)
    return text if bare else _punctuated(text, rng)


def _between(codec: str, first: int, last: int) -> str:
    """Return the characters whose code of two bytes in *codec* is from *first* to *last*."""
    texts = (code.to_bytes(2).decode(codec, errors="ignore") for code in range(first, last + 1))
    # Where no character is, its bytes are left out, or one stands as ASCII.
    return "".join(text for text in texts if not text.isascii())


# The first level of each standard: the characters in frequent use.
_SIMPLIFIED: Final = _between("gb2312", 0xB0A1, 0xD7F9)
_TRADITIONAL: Final = _between("big5", 0xA440, 0xC67E)
_KANJI: Final = _between("euc_jp", 0xB0A1, 0xCFD3)
_HIRAGANA: Final = _between("euc_jp", 0xA4A1, 0xA4F3)
_KATAKANA: Final = _between("euc_jp", 0xA5A1, 0xA5F4) + "ー"

_STARTS: Final = (*"bdghjklmnprstvwyz", "br", "ch", "cl", "dr", "fl", "gr", "pl", "qu", "sk", "st", "th", "tr")
_VOWELS: Final = (*"aaeeeiioou", "ai", "ea", "ou", "é", "ü")
_ENDS: Final = ("", "", "", *"dlmnrsx", "ff", "ll", "nd", "ng", "rk")


def _from(characters: str) -> Callable[[random.Random, int], str]:
    return lambda rng, wide: "".join(rng.choices(characters, k=wide))


def _japanese(rng: random.Random, wide: int) -> str:
    """Mix runs as sentences have them: kanji, what is inflected or joined, a foreign word now and then."""
    text = ""
    while len(text) < wide:
        text += "".join(rng.choices(_KANJI, k=rng.randint(1, 3)) + rng.choices(_HIRAGANA, k=rng.randint(1, 4)))
        if rng.random() < 0.35:
            text += "".join(rng.choices(_KATAKANA, k=rng.randint(2, 6)))
    return text[:wide]


def _punctuated(text: str, rng: random.Random) -> str:
    """Put marks of full width into a longer line, in place of characters."""
    if len(text) < 7:
        return text
    half = len(text) // 2
    return rng.choice(
        (
            text,
            text[:-1] + rng.choice("。！？；"),
            text[:half] + "，" + text[half + 1 :],
            text[:2] + "：" + text[3:],
            text[:half] + "、" + text[half + 1 : -1] + "。",
            "《" + text[1 : half - 1] + "》" + text[half:],
            text[:half] + "（" + text[half + 1 : -1] + "）",
            "“" + text[1:-1] + "”",
            "「" + text[1:half] + "」" + text[half + 1 :],
        )
    )


def _word(rng: random.Random) -> str:
    syllables = (rng.choice(_STARTS) + rng.choice(_VOWELS) + rng.choice(_ENDS) for _ in range(rng.randint(2, 3)))
    word = "".join(syllables)
    return rng.choice((word, word, word.capitalize(), word.upper()))


def _words(rng: random.Random, wide: int) -> str:
    """Join words by spaces and marks, as many Latin letters as stand in *wide* Chinese characters."""
    text = _word(rng)
    while len(text) < 1.6 * wide - 4:
        text += rng.choice((" ", " ", " ", " ", ", ", "-", " & ", ": ", " / ", "; ", "'s ")) + _word(rng)
    return text + rng.choice(("", "", ".", "!", "?"))


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def _amount(rng: random.Random) -> str:
    return f"{rng.choice('¥$€£')}{rng.randint(1, 9999):,}.{_digits(rng, 2)}"


_NUMBERS: Final[tuple[Callable[[random.Random], str], ...]] = (
    _amount,
    lambda rng: f"{rng.randint(1, 28):02}/{rng.randint(1, 12):02}/{rng.randint(1990, 2035)}",
    lambda rng: f"{rng.randint(2000, 2035)}.{rng.randint(1, 12)}.{rng.randint(1, 28)}",
    lambda rng: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}",
    lambda rng: f"({_digits(rng, 3)}) {_digits(rng, 3)}-{_digits(rng, 4)}",
    lambda rng: f"{rng.uniform(-40, 99):+.1f}% [{_digits(rng, 2)}]",
    lambda rng: f"{_digits(rng, 4)}x{_digits(rng, 3)} = {_digits(rng, 6)}",
    lambda rng: f"#{_digits(rng, 3)}-{rng.choice(string.ascii_uppercase)}{_digits(rng, 5)}*",
    lambda rng: f"{_word(rng)} {_digits(rng, 2)}.{_digits(rng, 3)} / {_digits(rng, 1)}",
)
_ADDRESSES: Final[tuple[Callable[[random.Random], str], ...]] = (
    lambda rng: f"https://www.{_name(rng)}.example/{_name(rng)}?{_name(rng)[:2]}={_digits(rng, 4)}",
    lambda rng: f"{_name(rng)}_{_digits(rng, 2)}@{_name(rng)}.example",
)


def _name(rng: random.Random) -> str:
    return _word(rng).lower().replace("é", "e").replace("ü", "u")


def _numbers(rng: random.Random, wide: int) -> str:
    if wide > 14 and rng.random() < 0.4:
        return rng.choice(_ADDRESSES)(rng)
    text = rng.choice(_NUMBERS)(rng)
    while len(text) < 1.6 * wide - 12:
        text += "  " + rng.choice(_NUMBERS)(rng)
    return text


def _mixed(rng: random.Random, wide: int) -> str:
    """Join Chinese, words and numbers, with a space between or without."""
    text, letters = "", 0.0
    while letters < wide - 3:
        han = "".join(rng.choices(_SIMPLIFIED, k=rng.randint(2, 5)))
        other = rng.choice((_word, _word, _amount, lambda rng: _digits(rng, rng.randint(1, 4))))(rng)
        text += han + rng.choice(("", " ")) + other + rng.choice(("", " ", "，"))
        letters += len(han) + 0.6 * len(other) + 0.5
    return text.rstrip(" ，")


_CHARACTERS: Final = {
    Writing.SIMPLIFIED: _from(_SIMPLIFIED),
    Writing.TRADITIONAL: _from(_TRADITIONAL),
    Writing.JAPANESE: _japanese,
}
_OTHERS: Final = {Writing.LATIN: _words, Writing.NUMBERS: _numbers, Writing.MIXED: _mixed}
