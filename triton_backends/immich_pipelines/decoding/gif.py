"""A look at a GIF file: what comes before its first frame. The others are never read."""

from __future__ import annotations

import struct
from typing import Final

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

MAX_BLOCKS: Final = 4096
"""Blocks of up to 255 bytes before the first frame, 1 MB in all: Pillow reads each in Python, and older ones join
comments at a cost that grows with the square. A colour profile or XMP packet has some hundred."""

_EXTENSION, _FRAME, _END = 0x21, 0x2C, 0x3B


def look(data: bytes) -> Scan:
    """Return what the GIF file *data* says of itself; raises `BadInput` when there is too much before its image."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << 1 + (flags & 7) if flags & 0x80 else 0)
    for _ in range(MAX_BLOCKS):
        kind = data[position]
        if kind == _FRAME:
            # Pillow enlarges the image to hold a frame that reaches over its edge.
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
            return Scan("GIF", max(width, left + frame_width), max(height, top + frame_height))
        if kind == _END:
            raise BadInput("the image cannot be decoded: the GIF file has no frame")
        position = _after_extension(data, position + 2) if kind == _EXTENSION else position + 1
    raise BadInput(_TOO_MANY)


def _after_extension(data: bytes, position: int) -> int:
    for _ in range(MAX_BLOCKS):
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise BadInput(_TOO_MANY)


_TOO_MANY: Final = f"the image is a GIF file with more than {MAX_BLOCKS} blocks before its first frame. Save it again"
