"""A look at an AVIF file: the boxes that describe it."""

from __future__ import annotations

import re
import struct
from typing import Final

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

BRANDS: Final = frozenset({b"avif", b"avis", b"mif1", b"msf1"})
"""Those that Pillow opens. HEIC files (``heic``) need a decoder that it does not have."""
MAX_BOXES: Final = 64
"""Boxes of the first level; files have 3 to 5."""
MAX_ITEMS: Final = 256
"""Pictures and tiles of one file; a phone's photo has about 50."""
MAX_DESCRIPTION: Final = 4_000_000
"""Bytes of one describing box; a few hundred for a picture, 4 for each frame of an animation."""
PASSES: Final = 4
"""What a pixel costs, beside one of JPEG."""

_PICTURE_SIZE: Final = re.compile(rb"ispe.{4}(.{8})", re.DOTALL)
_TRACK_SIZE: Final = re.compile(rb"av01.{24}(.{4})", re.DOTALL)


def look(data: bytes) -> Scan:
    """Return the largest size that the AVIF file *data* names; raises `BadInput` when it describes too much."""
    sizes: list[tuple[int, int]] = []
    items = 0
    for kind, box in _described(data):
        sizes += [struct.unpack(">II", found) for found in _PICTURE_SIZE.findall(box)]
        if kind == b"moov":
            sizes += [struct.unpack(">HH", found) for found in _TRACK_SIZE.findall(box)]
        items += box.count(b"infe")
    if items > MAX_ITEMS:
        raise BadInput(f"the image is an AVIF file of more than {MAX_ITEMS} pictures. Save it as one")
    if not sizes:
        raise BadInput("the image cannot be decoded: the AVIF file does not tell its size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Scan("AVIF", width, height, passes=PASSES)


def _described(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and content of the boxes that describe pictures (``meta``) and tracks (``moov``)."""
    found: list[tuple[bytes, bytes]] = []
    position = 0
    for _ in range(MAX_BOXES):
        if position + 8 > len(data):
            return found
        length, kind = struct.unpack_from(">I4s", data, position)
        if length == 1:  # the length follows, in 64 bits
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length == 0:  # to the end
            length = len(data) - position
        if kind in (b"meta", b"moov"):
            if length > MAX_DESCRIPTION:
                raise BadInput(f"the image is an AVIF file with a description of {length} bytes. Save it as one image")
            found.append((kind, data[position : position + length]))
        position += max(length, 8)
    raise BadInput(f"the image is an AVIF file of more than {MAX_BOXES} boxes. Save it again")
