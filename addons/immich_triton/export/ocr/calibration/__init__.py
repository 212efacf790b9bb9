"""Pages that show an export what the layers of the OCR networks see: from them come the ranges for int8.

Random characters in the writing, fonts and conditions that photos have; nothing is to be learned from what they say.
Rendered by ``scripts/lab/calibration_pages.py``, ours, under the MIT licence of this project. Two carry a photo: ``08``
the astronaut Eileen Collins, by NASA (public domain), ``09`` a cat, by Stéfan van der Walt (CC0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent


def files() -> list[Path]:
    """Return where the pages lie, in the order of their names."""
    return sorted(FOLDER.glob("*.jpg"))


def pages() -> list[bytes]:
    """Return the pages as JPEG, in the order of their names: RGB, 736x992 or 992x736, as the detector takes them."""
    return [path.read_bytes() for path in files()]
