"""Make of a photo what Immich sends to its machine learning: the preview, not the original."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps

ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})

SIDE: Final = 1440
"""Immich's default size of previews: the shorter side, in pixels; smaller photos are not enlarged."""

QUALITY: Final = 80


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the image files among *paths* and below the folders among them, sorted. Raises FileNotFoundError."""
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            for folder, _, names in os.walk(path):
                found.update(Path(folder, name) for name in names if Path(name).suffix.lower() in ENDINGS)
        elif path.exists():
            found.add(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return sorted(found)


def sample(files: list[Path], limit: int) -> list[Path]:
    """Return at most *limit* of *files*, evenly spread, the same ones each time; 0 means all."""
    if not limit or len(files) <= limit:
        return files
    return [files[index * len(files) // limit] for index in range(limit)]


def preview(path: Path) -> bytes:
    """Return the preview of a photo: upright, RGB, JPEG, shorter side at most `SIDE`.

    Raises OSError (or Pillow's subclass of it) when the file is no image that Pillow reads.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    return encode(shrunk(image, SIDE), QUALITY)


def thumbnail(data: bytes, side: int) -> bytes:
    """Return a smaller JPEG of a preview, whose longer side is at most *side* pixels."""
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((side, side))
        return encode(image, 70)


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """Return *image* with its shorter side at most *side* pixels."""
    scale = side / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encode(image: Image.Image, quality: int) -> bytes:
    """Return *image* as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
