"""A look at a WebP file: its chunks."""

from __future__ import annotations

import struct
from typing import Final

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

MAX_CHUNKS: Final = 16_384
"""A still image has up to 7, an animation one for each frame."""


def look(data: bytes) -> Scan:
    """Return what the WebP file *data* says of itself; raises `BadInput` when it has more chunks than an image has."""
    width, height = _size(data)
    position, chunks = 12, 0
    while position + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += 8 + length + length % 2
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise BadInput(f"the image is a WebP file with more than {MAX_CHUNKS} chunks. Save it again, without them")
    return Scan("WEBP", width, height)


def _size(data: bytes) -> tuple[int, int]:
    """Return width and height of the canvas, which no frame may exceed."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, high, height, highest = struct.unpack_from("<HBHB", data, 24)
        return 1 + width + (high << 16), 1 + height + (highest << 16)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise BadInput("the image cannot be decoded: the WebP file begins with no image")
