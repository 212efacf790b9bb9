"""Immich's machine-learning tasks, and what each consists of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KNOWN_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "clip": ("visual", "textual"),
    "facial-recognition": ("detection", "recognition"),
    "ocr": ("detection", "recognition"),
}
"""Immich's tasks and their types. An entry of any other task is passed on as it is, whatever its shape."""
