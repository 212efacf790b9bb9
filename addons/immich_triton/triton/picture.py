"""Format and size of an image file from its first bytes; nothing is decoded, so the gateway stays fast and safe.

Knows what Immich sends (JPEG, WebP) and what people send by hand. Layouts: ITU T.81 B.2.2 (JPEG frame header), PNG
specification 11.2.1 (IHDR), GIF89a (logical screen descriptor), WebP container specification (VP8, VP8L, VP8X), BMP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Picture:
    """Format name and size in pixels; 0 × 0 when the header does not tell. ``extension`` is for a file name."""

    format: str
    width: int = 0
    height: int = 0

    @property
    def extension(self) -> str:
        """Return the usual file name ending, with the dot."""
        return {"JPEG": ".jpg", "unknown format": ".bin"}.get(self.format, f".{self.format.lower()}")

    @property
    def large(self) -> bool:
        """Whether it may take so long that it must not take the last process from ordinary photos.

        So may a file that does not tell its size. What is in no known format is not: the pipelines refuse it at once.
        They judge by the size too (``immich_pipelines.large``), for the order within a batch.
        """
        area, (short, long) = self.width * self.height, sorted((self.width, self.height))
        return self.format != UNKNOWN.format and (not area or area > LARGE_PIXELS or long > LARGE_RATIO * short)


LARGE_PIXELS: Final = 8_000_000
"""An image of more pixels than that is large; Immich's previews have 2 to 5 million."""

LARGE_RATIO: Final = 6
"""So is one whose longer side has more than so many times the pixels of the shorter one, as a screenshot of a page."""

MOST_SEGMENTS: Final = 1000
"""Segments before the size of a JPEG that are looked at. Cameras write 10 to 100; tiny ones would be ten million."""

UNKNOWN: Final = Picture("unknown format")

_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers SOF0..SOF15, without DHT, JPG and DAC."""


def picture_of(data: bytes) -> Picture:
    """Return what the header of an image file says; `UNKNOWN` when it is none that we know."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Picture("PNG", _big(data[16:20]), _big(data[20:24]))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Picture("GIF", _little(data[6:8]), _little(data[8:10]))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"BM"):
        return Picture("BMP", _little(data[18:22]), abs(int.from_bytes(data[22:26], "little", signed=True)))
    if data.startswith((b"II*\0", b"MM\0*")):
        return Picture("TIFF")
    if data[4:8] == b"ftyp":
        return Picture("AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC")
    return UNKNOWN


def _jpeg(data: bytes) -> Picture:
    position = 2
    for _ in range(MOST_SEGMENTS):
        if position + 9 > len(data) or data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _FRAME_HEADERS:
            height, width = _big(data[position + 5 : position + 7]), _big(data[position + 7 : position + 9])
            return Picture("JPEG", width, height)
        else:
            position += 2 + _big(data[position + 2 : position + 4])
    return Picture("JPEG")


def _webp(data: bytes) -> Picture:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return Picture("WebP", _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF)
    if kind == b"VP8L" and len(data) >= 25:
        bits = _little(data[21:25])
        return Picture("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X" and len(data) >= 30:
        return Picture("WebP", _little(data[24:27]) + 1, _little(data[27:30]) + 1)
    return Picture("WebP")


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
