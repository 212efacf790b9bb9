"""A look at a TIFF file: its first directory, and the strips or tiles that it names."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

MAX_TAGS: Final = 512
"""Entries of the directory; files have 15 to 60."""
MAX_PARTS: Final = 131_072
"""Strips or tiles: each costs Pillow a step in Python. 100 megapixels in tiles of 64x64 are 24,000."""
MAX_TILE_PIXELS: Final = 16_777_216
"""Of a tile that is larger than the picture (4096x4096): it is decoded whole, and no program writes larger ones."""
COMPRESSIONS: Final = {
    1: "none",
    2: "CCITT",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
}
"""What is accepted. LZMA and others let the file say how much memory they take."""

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value, by TIFF's number of its type."""
_WHOLE_NUMBERS: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_WIDTH, _LENGTH, _COMPRESSION, _PLANES = 256, 257, 259, 284
_SAMPLES = 277
_STRIPS, _ROWS = 273, 278
_TILE_WIDTH, _TILE_LENGTH, _TILES = 322, 323, 324


@dataclass(frozen=True)
class _Entry:
    type: int
    count: int
    offset: int
    """Where its values are."""

    @property
    def bytes(self) -> int:
        return self.count * _SIZES.get(self.type, 0)


def look(data: bytes) -> Scan:
    """Return what the TIFF file *data* says of itself; raises `BadInput` when it names more than the picture has."""
    tags = _Tags(data)
    width, height = tags.number(_WIDTH, 0), tags.number(_LENGTH, 0)
    compression = tags.number(_COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        raise BadInput(
            f"the image is a TIFF file with compression {compression}, which is not supported "
            f"({', '.join(dict.fromkeys(COMPRESSIONS.values()))} are). Save it as PNG or JPEG"
        )
    tiled = tags.count(_TILE_WIDTH) > 0
    if tiled and tags.count(_STRIPS):  # Pillow would take the strips, libtiff the tiles
        raise BadInput("the image cannot be decoded: the TIFF file has strips and tiles")
    part_width = tags.number(_TILE_WIDTH, width) if tiled else width
    part_height = tags.number(_TILE_LENGTH, height) if tiled else min(tags.number(_ROWS, height), height)
    if not width or not height or not part_width or not part_height:
        raise BadInput("the image cannot be decoded: the TIFF file does not tell its size")
    columns, rows = math.ceil(width / part_width), math.ceil(height / part_height)
    layers = tags.number(_SAMPLES, 1) if tags.number(_PLANES, 1) == 2 else 1
    _check_parts(tags.count(_TILES if tiled else _STRIPS), columns * rows * layers)
    if part_width * part_height > max(width * height, MAX_TILE_PIXELS):
        raise BadInput(
            f"the image of {width}x{height} pixels is stored in tiles of {part_width}x{part_height}, "
            f"more than {MAX_TILE_PIXELS} pixels. Save it with smaller ones"
        )
    return Scan("TIFF", width, height, decoded=columns * part_width * rows * part_height if tiled else 0)


def _check_parts(parts: int, needed: int) -> None:
    """Refuse more strips or tiles than the picture has room for: each would be decoded all the same."""
    if parts > min(needed, MAX_PARTS):
        raise BadInput(
            f"the image is a TIFF file with {parts} strips or tiles; {needed} make up the picture, and at most "
            f"{MAX_PARTS} are allowed. Save it again"
        )


class _Tags:
    """The first directory of the TIFF file *data*."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "<" if data[:2] == b"II" else ">"
        self._big = 43 in (data[2], data[3])
        (start,) = self._unpack("Q", 8) if self._big else self._unpack("I", 4)
        (number,) = self._unpack("Q" if self._big else "H", start)
        if number > MAX_TAGS:
            raise BadInput(f"the image is a TIFF file with {number} tags, more than {MAX_TAGS}. Save it again")
        self._entries: dict[int, _Entry] = {}
        for index in range(number):
            self._read(start + (8 + 20 * index if self._big else 2 + 12 * index))
        if sum(entry.bytes for entry in self._entries.values()) > len(data) + MAX_TAGS * 8:
            raise BadInput(f"the image is a TIFF file of {len(data)} bytes whose tags hold more. Save it again")

    def count(self, tag: int) -> int:
        """Return how many values *tag* has; 0 when it is not there."""
        return self._entries[tag].count if tag in self._entries else 0

    def number(self, tag: int, default: int) -> int:
        """Return the first value of *tag*, or *default* where it has no whole number."""
        entry = self._entries.get(tag)
        if entry is None or not entry.count or entry.type not in _WHOLE_NUMBERS:
            return default
        return self._unpack(_WHOLE_NUMBERS[entry.type], entry.offset)[0]

    def _read(self, position: int) -> None:
        tag, kind, count = self._unpack("HHQ" if self._big else "HHI", position)
        place = position + (12 if self._big else 8)
        entry = _Entry(kind, count, place)
        if entry.bytes > (8 if self._big else 4):
            entry = _Entry(kind, count, self._unpack("Q" if self._big else "I", place)[0])
        if tag in self._entries:
            raise BadInput(f"the image cannot be decoded: tag {tag} is twice in the TIFF file")
        self._entries[tag] = entry

    def _unpack(self, form: str, position: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, self._data, position)
