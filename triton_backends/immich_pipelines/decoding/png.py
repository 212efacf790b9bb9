"""A look at a PNG file: its chunks."""

from __future__ import annotations

import struct
from typing import Final

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

MAX_DATA_CHUNKS: Final = 65_536
"""Chunks with pixels, of animations too. Encoders write them in 8 kB and more: that is a file of 512 MB."""
MAX_OTHER_CHUNKS: Final = 256
"""All others, and data chunks without data. Pillow handles each in Python, and may inflate each to 1 MB. Files have
under 50."""

_DATA: Final = frozenset({b"IDAT", b"fdAT", b"fcTL"})


def look(data: bytes) -> Scan:
    """Return what the PNG file *data* says of itself; raises `BadInput` when it has more chunks than a picture has."""
    _, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR":
        raise BadInput("the image cannot be decoded: the PNG file does not begin with its header")
    position, pixels, others = 8, 0, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            break
        if length and kind in _DATA:
            pixels += 1
        else:
            others += 1
        if pixels > MAX_DATA_CHUNKS or others > MAX_OTHER_CHUNKS:
            raise BadInput(
                f"the image is a PNG file with more than {MAX_DATA_CHUNKS} chunks of pixels, or {MAX_OTHER_CHUNKS} "
                f"others; no picture has so many. Save it again"
            )
        position += 12 + length
    return Scan("PNG", width, height)
