"""Which simplified and traditional characters stand for each other: what a recogniser's export carries along.

The table beside this module is OpenCC's; the pipeline finds it in the metadata of the recogniser, see
``immich_pipelines.ocr_variants``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from immich_pipelines import ocr_variants
from immich_pipelines.ocr_variants import MOST

TABLE: Final = Path(__file__).with_name("chinese_variants.txt")

SOURCES: Final = (str(TABLE), __file__, str(ocr_variants.__file__))
"""What determines the alternatives of an export."""

ALIKE: Final = ("凈淨", "註注", "—一", "―一", "–一", "－一", "-一")
"""What looks like a far more usual character, and that: when one is meant, ``immich_pipelines.ocr_alike`` says."""


def alike(characters: Sequence[str]) -> list[str]:
    """Return the pairs of `ALIKE` that *characters* has."""
    return [pair for pair in ALIKE if set(pair) <= set(characters)]


def rows() -> list[str]:
    """Return the table: each row a simplified character and the traditional ones that it stands for."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def of_one_script(characters: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what simplified writing alone has among *characters*, and what traditional writing alone has.

    Each row is such a character and its variants, the most usual first. Characters of both scripts have none: they are
    wrong on no page. 余 and 餘 are both written in traditional texts, and 后 is as right there as 後.
    """
    known = frozenset(characters)
    simplified: dict[str, list[str]] = {}
    traditional: dict[str, list[str]] = {}
    for row in rows():
        one, others = row[0], [variant for variant in row[1:] if variant in known]
        if one in known and others:
            simplified[one] = others
            for variant in others:
                traditional.setdefault(variant, []).append(one)
    found = (
        {one: others for one, others in simplified.items() if one not in traditional},
        {one: others for one, others in traditional.items() if one not in simplified},
    )
    first, second = ([one + "".join(others[:MOST]) for one, others in part.items()] for part in found)
    return first, second
