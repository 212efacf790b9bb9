"""Which simplified and traditional characters stand for each other: what a recogniser's export carries along.

The table beside this module is OpenCC's; the pipeline finds it in the metadata of the recogniser, see
``immich_pipelines.ocr_variants``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from immich_pipelines import ocr_variants

TABLE: Final = Path(__file__).with_name("chinese_variants.txt")

SOURCES: Final = (str(TABLE), str(ocr_variants.__file__))
"""What determines the alternatives of an export."""


def rows() -> list[str]:
    """Return the table: each row a simplified character and the traditional ones that it stands for."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def rows_of(characters: frozenset[str]) -> list[str]:
    """Return the part of the table whose characters are all among *characters*, rows of one character left out."""
    known = (row[0] + "".join(filter(characters.__contains__, row[1:])) for row in rows() if row[0] in characters)
    return [row for row in known if len(row) > 1 and row != row[0] * 2]
