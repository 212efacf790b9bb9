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

HEADER: Final = f"""\
# Simplified characters, each followed by the traditional ones that it stands for, itself among them where it is one.
# Those in GB 2312 and Big5, which are in common use. From the dictionaries STCharacters and TSCharacters of
# OpenCC {opencc.__version__} (https://github.com/BYVoid/OpenCC), Apache License 2.0.
# Written by scripts/lab/chinese_variants.py.
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
    for simplified, variants in _dictionary("STCharacters"):
        traditional.setdefault(simplified, {}).update(dict.fromkeys(variants))
    for variant, simplified_ones in _dictionary("TSCharacters"):
        for simplified in simplified_ones:
            traditional.setdefault(simplified, {})[variant] = None
    rows = [
        simplified + "".join(variant for variant in found if _written_in("big5", variant))
        for simplified, found in sorted(traditional.items())
        if _written_in("gb2312", simplified)
    ]
    return HEADER + "".join(f"{row}\n" for row in rows if len(row) > 1)


def _written_in(encoding: str, character: str) -> bool:
    """Tell whether *character* is in a character set that holds what one script is usually written with."""
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


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
