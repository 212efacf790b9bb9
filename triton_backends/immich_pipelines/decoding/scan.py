"""A cheap look at an image file before it is decoded: the format, the size, and whether it asks for too much.

An image of a few kilobytes can keep a decoder busy for minutes or have it take gigabytes: hundreds of progressive
scans, millions of empty chunks, tiles larger than the picture. Each format's module bounds what its decoder would
repeat. A look follows lengths and skips contents; its time grows with the number of pieces, which is bounded, and with
the size of the file for JPEG alone, whose scans have no length (30 MB take 0.1 s).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from immich_pipelines.decoding import avif, bmp, gif, jpeg, png, tiff, webp
from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

MAX_PIXELS: Final = 100_000_000
"""Default bound on width x height, checked before a pixel is decoded (a 200-megapixel bomb needs 600 MB)."""

MAX_WORK: Final = 2_000_000_000
"""Pixels times passes, some ten seconds: a progressive JPEG of 100 megapixels in 20 scans, of 20 megapixels in 100."""

_LOOKS: Final[Mapping[str, Callable[[bytes], Scan]]] = {
    "JPEG": jpeg.look,
    "PNG": png.look,
    "WEBP": webp.look,
    "GIF": gif.look,
    "BMP": bmp.look,
    "TIFF": tiff.look,
    "AVIF": avif.look,
}

FORMATS: Final = tuple(_LOOKS)
"""What is accepted, in Pillow's names. Immich sends JPEG or WebP previews; the others are common in libraries. All else
that Pillow could open is refused, since nobody has bounded it: EPS would start Ghostscript."""


def scan(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Scan:
    """Look at the image file *data*. Raises `BadInput` when it is none, or asks for more than a photo may.

    What passes may still be damaged; the decoder tells.
    """
    if not data:
        raise BadInput("the image is empty (0 bytes)")
    name = format_of(data)
    if name is None:
        raise BadInput(
            f"the {len(data)} bytes are no image in a known format ({', '.join(FORMATS)}); convert it to one of them"
        )
    try:
        found = _LOOKS[name](data)
    except (struct.error, IndexError, OverflowError):  # it ends where a length or a size should be
        raise BadInput(f"the image cannot be decoded: the {name} file is cut off") from None
    _check(found, max_pixels)
    return found


def size_of(data: bytes) -> tuple[int, int]:
    """Return height and width in pixels, as the file *data* states them; raises `BadInput` as `scan` does.

    For deciding how an image is treated; takes microseconds for most, see above.
    """
    found = scan(data, max_pixels=2**62)
    return found.height, found.width


def format_of(data: bytes) -> str | None:
    """Return Pillow's name of the format by the first bytes; None for one that is not accepted."""
    head = data[:16]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head[4:8] == b"ftyp" and head[8:12] in avif.BRANDS:
        return "AVIF"
    return None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `BadInput` when an image has more than *max_pixels*."""
    if width * height > max_pixels:
        raise BadInput(f"the image has {width}x{height} pixels, more than the allowed {max_pixels}")


def _check(found: Scan, max_pixels: int) -> None:
    check_size(found.width, found.height, max_pixels)
    size = f"{found.width}x{found.height} pixels"
    if not found.width * found.height:
        raise BadInput(f"the image cannot be decoded: it has {size}")
    if found.work > MAX_WORK:
        raise BadInput(
            f"the image of {size} would take too long to decode: {found.passes} passes over {found.pixels} pixels. "
            f"Save it in another way"
        )
