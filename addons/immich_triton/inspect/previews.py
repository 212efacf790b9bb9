"""Make of a photo what Immich sends to its machine learning: the preview, not the original."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image, ImageOps

FORMATS: Final = "JPEG, PNG, WebP, TIFF, BMP or GIF"
ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})

KINDS: Final = 8
"""Kinds of files that are named, of those left aside."""

SIDE: Final = 1440
"""Immich's default size of previews: the shorter side, in pixels; smaller photos are not enlarged."""

QUALITY: Final = 80

THUMBNAIL: Final = 900
"""Longer side of the pictures in a report, in pixels."""


class Found(NamedTuple):
    """The image *files*, sorted, and how many *others* there are in the folders, by the endings of their names."""

    files: list[Path]
    others: Counter[str]


def find(paths: Iterable[Path]) -> Found:
    """Return the files among *paths*, and the images below the folders among them. Raises FileNotFoundError."""
    found: set[Path] = set()
    others: set[Path] = set()
    for path in paths:
        if path.is_dir():
            for folder, _, names in os.walk(path):
                for name in names:
                    file = Path(folder, name)
                    (found if file.suffix.lower() in ENDINGS else others).add(file)
        elif path.exists():
            found.add(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return Found(sorted(found), Counter(file.suffix.lower() or "without ending" for file in others - found))


def skipped(others: Counter[str]) -> str:
    """Return a sentence about the files that were left aside, the most frequent kinds first."""
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count} {ending}" for ending, count in ranked[:KINDS]]
    more = ", …" if len(others) > KINDS else ""
    return f"skipped {others.total()} files that are no {FORMATS} ({', '.join(kinds)}{more})"


def sample(files: list[Path], limit: int) -> list[Path]:
    """Return at most *limit* of *files*, evenly spread, the same ones each time; 0 means all."""
    if not limit or len(files) <= limit:
        return files
    return [files[index * len(files) // limit] for index in range(limit)]


def preview(path: Path) -> bytes:
    """Return the preview of a photo: upright, RGB, JPEG, shorter side at most `SIDE`.

    Raises whatever Pillow raises over a file that it does not read: mostly OSError, `Image.DecompressionBombError` over
    a very large one, and over a torn one nearly anything.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    return encode(shrunk(image, SIDE), QUALITY)


def thumbnail(data: bytes) -> bytes:
    """Return a smaller JPEG of a preview, whose longer side is at most `THUMBNAIL` pixels."""
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
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
