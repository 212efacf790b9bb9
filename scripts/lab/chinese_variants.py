"""Write the table of simplified and traditional characters that an OCR export carries; --check only compares.

    .venv/bin/python scripts/lab/chinese_variants.py

Out of OpenCC's dictionaries of single characters, in the version that requirements-dev.lock pins.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import opencc

from immich_triton.export.ocr.chinese_variants import TABLE

RARE_IN_GB2312: Final = b"\xd8\xa1"
RARE_IN_BIG5: Final = b"\xc9\x40"
"""Where the second level begins, that of rare characters."""

HEADER: Final = f"""\
# Simplified characters, each followed by the traditional ones that it stands for, itself among them where it is one.
# Those in GB 2312 and Big5; rare ones in one of these, as 於 and 温, count as characters of the other alone.
# From the dictionaries STCharacters, TSCharacters, TWVariants and HKVariants of OpenCC {opencc.__version__}
# (https://github.com/BYVoid/OpenCC), Apache License 2.0. Written by scripts/lab/chinese_variants.py.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when the table is written or as it should be, 1 when it is not."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--check", action="store_true", help="write nothing; fail when the table would change")
    if command.parse_args(arguments).check:
        if TABLE.read_text(encoding="utf-8") == table():
            return 0
        print(
            f"chinese_variants: {TABLE} is not what OpenCC {opencc.__version__} says; "
            "run .venv/bin/python scripts/lab/chinese_variants.py",
            file=sys.stderr,
        )
        return 1
    TABLE.write_text(table(), encoding="utf-8")
    return 0


def table() -> str:
    """Return the whole file."""
    # Sets that keep their order, which is OpenCC's: the most usual first.
    traditional: dict[str, dict[str, None]] = {}
    to_traditional, to_simplified = dict(_dictionary("STCharacters")), dict(_dictionary("TSCharacters"))
    for simplified, variants in to_traditional.items():
        # 座 may stand for 坐, but is right in simplified texts too: OpenCC leaves it as it is there.
        also = {one for one in variants if one not in to_simplified and _simplified(one, rarely=True)}
        traditional.setdefault(simplified, {}).update((one, None) for one in variants if one not in also - {simplified})
    for variant, simplified_ones in to_simplified.items():
        for simplified in simplified_ones:
            traditional.setdefault(simplified, {})[variant] = None
    # 祕 is 秘 in Taiwan and in Hong Kong.
    usual = {one for name in ("TWVariants", "HKVariants") for _, ones in _dictionary(name) for one in ones}
    rows = []
    for simplified, found in sorted(traditional.items()):
        others = [variant for variant in found if _traditional(variant, rarely=variant != simplified)]
        if others and _simplified(simplified, rarely=simplified not in found):
            # 糖 for 醣, 和 for 龢: what OpenCC leaves as it is in a traditional text is right there too.
            right = simplified not in to_traditional or simplified in usual
            both = right and simplified not in found and _traditional(simplified, rarely=False)
            rows.append(simplified + simplified * both + "".join(others))
    return HEADER + "".join(f"{row}\n" for row in rows)


def _simplified(character: str, *, rarely: bool) -> bool:
    """Tell whether *character* is in GB 2312, and in its first level unless *rarely* will do."""
    code = character.encode("gb2312", errors="ignore")
    return len(code) == 2 and (rarely or code < RARE_IN_GB2312)


def _traditional(character: str, *, rarely: bool) -> bool:
    """Tell whether *character* is in Big5, and in its first level unless *rarely* will do."""
    code = character.encode("big5", errors="ignore")
    return len(code) == 2 and (rarely or code < RARE_IN_BIG5)


def _dictionary(name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the entries of one of OpenCC's dictionaries: a character and what it becomes."""
    folder = Path(opencc.__file__).parent / "clib"
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "dictionary.txt"
        source = folder / "share/opencc" / f"{name}.ocd2"
        program = folder / "bin/opencc_dict"
        subprocess.run([program, "-i", source, "-f", "ocd2", "-o", text, "-t", "text"], check=True)
        for line in text.read_text(encoding="utf-8").splitlines():
            character, _, variants = line.partition("\t")
            yield character, variants.split()


if __name__ == "__main__":
    sys.exit(main())
