"""A look at a BMP file: its header."""

from __future__ import annotations

import struct
from typing import Final

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

MAX_RLE_BYTES: Final = 4_000_000
"""Pillow decodes run lengths in Python: 4 MB take two seconds."""
RLE_PASSES: Final = 8
"""What that costs, beside pixels that are copied."""

_RLE: Final = (1, 2)
_OLD_HEADER: Final = 12


def look(data: bytes) -> Scan:
    """Return what the BMP file *data* says of itself; raises `BadInput` when it is packed and too large."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header == _OLD_HEADER:
        width, height = struct.unpack_from("<HH", data, 18)
        return Scan("BMP", width, height)
    # A negative height: the rows are stored from the top.
    width, height, _, _, compression = struct.unpack_from("<IiHHI", data, 18)
    packed = compression in _RLE
    if packed and len(data) > MAX_RLE_BYTES:
        raise BadInput(
            f"the image is a run-length encoded BMP file of {len(data)} bytes, more than {MAX_RLE_BYTES}. "
            f"Save it as PNG"
        )
    return Scan("BMP", width, abs(height), passes=RLE_PASSES if packed else 1)
