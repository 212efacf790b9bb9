"""Render the pages that an OCR export is calibrated with into the package; --check only compares.

    .venv/bin/python scripts/lab/calibration_pages.py

Random characters, words and numbers of each writing, so that the pages of eval_ocr.py stay unseen; dark and light,
sharp and spoiled. An int8 export takes the ranges of its layers from them: other pages make other networks, which are
to be evaluated again.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from immich_triton.export.ocr import calibration
from ocr_eval.calibration import calibration_pages
from ocr_eval.fonts import FontsMissingError
from ocr_eval.pages import Page, pixel_digest

ROUNDING: Final = 4
"""By how much a square of a page may differ in the mean, in levels of 0..255: OpenCV rounds by what the CPU has."""
SQUARE: Final = 32
"""Its side in pixels; those of a page are multiples of it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when the pages are written or as they should be, 1 when not or without the fonts."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--check", action="store_true", help="write nothing; fail when a page would change")
    check = command.parse_args(arguments).check
    try:
        pages = list(calibration_pages())
    except FontsMissingError as error:
        print(f"calibration_pages: {error}", file=sys.stderr)
        return 1
    if check and (others := different(pages)):
        print(
            f"calibration_pages: {', '.join(others)} in {calibration.FOLDER} are not what is rendered here; "
            "run .venv/bin/python scripts/lab/calibration_pages.py",
            file=sys.stderr,
        )
        return 1
    if not check:
        write(pages)
    for page in pages:
        size = f"{page.width}x{page.height}"
        print(f"{page.name:14} {size:8} {len(page.jpeg) / 1000:4.0f} kB {len(page.lines):3} lines")
    kilobytes, lines = sum(len(page.jpeg) for page in pages) / 1000, sum(len(page.lines) for page in pages)
    print(f"{len(pages)} pages, {kilobytes:.0f} kB, {lines} lines, pixels {pixel_digest(pages)[:12]}")
    return 0


def different(pages: Sequence[Page]) -> list[str]:
    """Return the names of pages that the package has otherwise than they are in *pages*, or on one side only."""
    there = {path.stem: path.read_bytes() for path in calibration.files()}
    wanted = {page.name: page.jpeg for page in pages}
    return sorted(
        name
        for name in there.keys() | wanted.keys()
        if name not in there or name not in wanted or not _alike(there[name], wanted[name])
    )


def write(pages: Sequence[Page]) -> None:
    """Put *pages* into the package, in place of those that are there."""
    for path in calibration.files():
        path.unlink()
    for page in pages:
        (calibration.FOLDER / f"{page.name}.jpg").write_bytes(page.jpeg)


def _alike(one: bytes, other: bytes) -> bool:
    first, second = (np.asarray(Image.open(io.BytesIO(jpeg)), np.float64) for jpeg in (one, other))
    if first.shape != second.shape:
        return False
    height, width, _ = first.shape
    squares = np.abs(first - second).reshape(height // SQUARE, SQUARE, width // SQUARE, SQUARE, 3)
    return float(squares.mean(axis=(1, 3, 4)).max()) < ROUNDING


if __name__ == "__main__":
    sys.exit(main())
