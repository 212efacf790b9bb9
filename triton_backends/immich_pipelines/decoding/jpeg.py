"""A look at a JPEG file: its segments up to the end of the first image."""

from __future__ import annotations

import re
import struct
from typing import Final

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.errors import BadInput

MAX_SCANS: Final = 100
"""Progressive encoders write about 10, optimising ones up to 30. libtiff draws the same line."""
MAX_SEGMENTS: Final = 1024
"""Segments of any kind. A phone's photo with a depth map (extended XMP of 10 MB) has 160, a colour profile up to
255."""
MAX_EXIF_SEGMENTS: Final = 4
"""Pillow joins them, at a cost that grows with their square, and each IFD entry may point to all of it. Cameras write
one."""
MAX_FILL: Final = 4096
"""Stray bytes between the segments before the first scan: Pillow steps over them one by one."""

_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""What ends coded data: neither a stuffed zero, nor a restart, nor fill bytes."""
_WINDOW: Final = 262_144
"""Bytes that are searched at a time: Python's other threads stand still meanwhile, for 2 ms at most."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start of frame; the three between are tables and a reserved code."""
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1


def look(data: bytes) -> Scan:
    """Return what the JPEG file *data* says of itself; raises `BadInput` when it has more pieces than a photo has."""
    position, fill, segments, exif, scans = 2, 0, 0, 0, 0
    width = height = components = frame = 0
    while (place := _marker(data, position, anywhere=scans > 0)) >= 0:
        fill += place - position if not scans else 0
        marker = data[place + 1]
        position = place + 2
        if marker == _EOI:
            break
        if marker == _SOI:  # has no length
            continue
        length: int = struct.unpack_from(">H", data, position)[0]
        segments += 1
        if marker in _FRAMES:
            if frame:
                raise BadInput("the image cannot be decoded: the JPEG file has two frames")
            frame = marker
            height, width, components = struct.unpack_from(">HHB", data, position + 3)
        elif marker == _SOS:
            scans += 1
            if frame not in _PROGRESSIVE and data[position + 2] >= components:
                break  # everything is in this one scan: no decoder looks beyond it
        elif marker == _APP1 and data.startswith(b"Exif\0\0", position + 2):
            exif += 1
        _bound(scans, segments, exif, fill)
        position += max(length, 2)
    if not scans and len(data) - position > MAX_FILL:
        fill = MAX_FILL + 1
    _bound(scans, segments, exif, fill)
    return Scan("JPEG", width, height, passes=max(scans, 1))


def _marker(data: bytes, position: int, *, anywhere: bool) -> int:
    """Return where the next marker is; -1 when there is none, or, unless *anywhere*, none close by."""
    end = len(data) if anywhere else min(len(data), position + MAX_FILL + 2)
    while position < end:
        if found := _MARKER.search(data, position, min(position + _WINDOW + 1, end)):
            return found.start()
        position += _WINDOW
    return -1


def _bound(scans: int, segments: int, exif: int, fill: int) -> None:
    for number, most, what in (
        (scans, MAX_SCANS, "scans"),
        (exif, MAX_EXIF_SEGMENTS, "EXIF segments"),
        (segments, MAX_SEGMENTS, "segments"),
        (fill, MAX_FILL, "stray bytes between its segments"),
    ):
        if number > most:
            raise BadInput(
                f"the image is a JPEG file with more than {most} {what}; no photo has so many. Save it again"
            )
