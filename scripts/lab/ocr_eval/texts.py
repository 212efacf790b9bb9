"""Lines of text per script, drawn from `phrases` and from templates by a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from ocr_eval import phrases


class Script(StrEnum):
    """What a line is written in."""

    SIMPLIFIED = "simplified"
    TRADITIONAL = "traditional"
    ENGLISH = "english"
    DIGITS = "digits"
    MIXED = "mixed"


def lines(script: Script, rng: random.Random, *, vertical: bool = False) -> Iterator[str]:
    """Yield lines of *script* without end; a phrase comes back only after all the others of its list."""
    if vertical:
        yield from _shuffled(_VERTICAL[script], rng)
    elif script in _PHRASES:
        yield from _shuffled(_PHRASES[script], rng)
    else:
        while True:
            yield rng.choice(_TEMPLATES[script])(rng)


def _shuffled(pool: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(pool, len(pool))


def _price(rng: random.Random) -> str:
    whole = rng.randint(1, 99) if rng.random() < 0.6 else rng.randint(100, 4999)
    return f"{whole}.{rng.randint(0, 9)}{rng.choice('0589')}"


def _date(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(1998, 2031), rng.randint(1, 12), rng.randint(1, 28)


def _iso_date(rng: random.Random) -> str:
    year, month, day = _date(rng)
    return f"{year}-{month:02}-{day:02} {rng.randint(0, 23):02}:{rng.randint(0, 59):02}"


def _dotted_date(rng: random.Random) -> str:
    year, month, day = _date(rng)
    return f"{day:02}.{month:02}.{year}"


def _groups(rng: random.Random, *sizes: int) -> list[str]:
    return ["".join(rng.choices("0123456789", k=size)) for size in sizes]


DIGITS: Final[tuple[Callable[[random.Random], str], ...]] = (
    lambda rng: f"¥{_price(rng)}",
    lambda rng: f"${_price(rng)}",
    lambda rng: f"Qty {rng.randint(2, 12)} @ {_price(rng)}",
    lambda rng: f"{rng.randint(5, 60)}%",
    lambda rng: f"{rng.randint(1, 999)}.{rng.randint(0, 99):02} kg",
    _iso_date,
    _dotted_date,
    lambda rng: " ".join(_groups(rng, 4, 4, 4, 4)),
    lambda rng: "-".join(_groups(rng, 3, 4, 4)),
    lambda rng: f"+{rng.randint(1, 98)} " + " ".join(_groups(rng, 3, 4, 4)),
    lambda rng: "No." + _groups(rng, rng.randint(6, 10))[0],
    lambda rng: f"{rng.randint(1, 99999):,}",
)
"""Numbers as receipts, labels and forms print them."""


def _mixed_goods(rng: random.Random) -> str:
    chinese, english = rng.choice(phrases.GOODS)
    return f"{chinese} {english} ¥{_price(rng)}"


def _mixed_pack(rng: random.Random) -> str:
    chinese, english = rng.choice(phrases.GOODS)
    return f"{english} {chinese}{rng.choice((100, 250, 330, 500, 750))}{rng.choice(('g', 'ml'))}"


def _chinese_date(rng: random.Random) -> str:
    year, month, day = _date(rng)
    return f"{year}年{month}月{day}日"


MIXED: Final[tuple[Callable[[random.Random], str], ...]] = (
    _mixed_goods,
    _mixed_pack,
    lambda rng: f"{rng.choice(phrases.GOODS)[0]}{rng.randint(2, 9)}盒共{_price(rng)}元",
    lambda rng: f"WiFi密码 {rng.choice(('guest', 'hotel', 'cafe'))}{rng.randint(1000, 9999)}",
    lambda rng: f"{rng.choice(('G', 'D', 'K'))}{rng.randint(10, 9999)}次列车{rng.randint(1, 16)}号车厢",
    lambda rng: f"Gate {rng.randint(1, 60)} 登机口",
    lambda rng: f"会议室 Room {rng.randint(101, 1299)}",
    lambda rng: f"发布日期 {_chinese_date(rng)}",
    lambda rng: f"第{rng.randint(2, 30)}页共{rng.randint(31, 99)}页",
    lambda rng: f"{rng.choice(('USB', 'HDMI', 'Type-C', 'LED'))}接口支持{rng.choice((5, 12, 20, 60))}W",
)
"""Chinese with Latin letters and numbers, as on packages, tickets and signs."""

_PHRASES: Final = {
    Script.SIMPLIFIED: phrases.SIMPLIFIED,
    Script.TRADITIONAL: phrases.TRADITIONAL,
    Script.ENGLISH: phrases.ENGLISH,
}
_VERTICAL: Final = {
    Script.SIMPLIFIED: phrases.VERTICAL_SIMPLIFIED,
    Script.TRADITIONAL: phrases.VERTICAL_TRADITIONAL,
}
_TEMPLATES: Final = {Script.DIGITS: DIGITS, Script.MIXED: MIXED}
