"""Small image files that used to take a decoder away from everybody, made on the spot; for tests and trials.

Each is a few kilobytes to 20 MB, and once kept a pipeline busy for seconds to minutes, or took gigabytes.
"""

from __future__ import annotations

import functools
import gzip
import io
import struct
import zlib
from typing import Final

from PIL import Image

SCANS: Final = 650
SEGMENTS: Final = 40_000
EMPTY_CHUNKS: Final = 1_700_000
"""20 MB of them."""


@functools.cache
def samples() -> dict[str, bytes]:
    """Return every sample by its name."""
    return {
        "jpeg-scans": jpeg_scans(),
        "jpeg-exif": jpeg_segments(0xE1, b"Exif\0\0" + bytes(20)),
        "jpeg-comments": jpeg_segments(0xFE, b"a comment"),
        "jpeg-fill": jpeg_fill(),
        "png-chunks": png_chunks(),
        "tiff-tile": tiff_tile(),
        "tiff-strips": tiff_strips(),
        "gif-comments": gif_comments(),
        "fits-gzip": fits_gzip(),
        "ppm": ppm(),
        "jpeg2000-tiles": jpeg2000_tiles(),
        "eps": eps(),
    }


def jpeg_scans(side: int = 4000, scans: int = SCANS) -> bytes:
    """Return a progressive JPEG whose last scan is repeated: each costs a pass over *side* x *side* pixels."""
    data = _saved(Image.linear_gradient("L").resize((side, side)), "JPEG", quality=5, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def jpeg_segments(marker: int, content: bytes, number: int = SEGMENTS) -> bytes:
    """Return a JPEG with *number* segments of one kind before its picture."""
    data = _saved(Image.new("RGB", (64, 64)), "JPEG")
    return data[:2] + (struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content) * number + data[2:]


def jpeg_fill(size: int = 20_000_000) -> bytes:
    """Return a JPEG with *size* fill bytes before its first segment, which Pillow reads one by one."""
    data = _saved(Image.new("RGB", (64, 64)), "JPEG")
    return data[:2] + b"\xff" * size + data[2:]


def png_chunks(number: int = EMPTY_CHUNKS) -> bytes:
    """Return a PNG with *number* empty chunks."""
    data = _saved(Image.new("RGB", (64, 64)), "PNG")
    end = data.index(b"IDAT") - 4
    return data[:end] + (bytes(4) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))) * number + data[end:]


def tiff_tile(side: int = 64, width: int = 16_384, height: int = 36_000) -> bytes:
    """Return a TIFF of *side* x *side* pixels in one tile of *width* x *height*."""
    packed = zlib.compress(bytes(width * 3 * 16), 9)
    return _tiff(
        {256: side, 257: side, 258: 8, 259: 8, 262: 2, 277: 3, 322: width, 323: height, 324: 8, 325: len(packed)},
        packed,
    )


def tiff_strips(strips: int = 2_000_000) -> bytes:
    """Return a TIFF of 64x64 pixels with far more strips than it has rows, each a step in Pillow's Python."""
    offsets = struct.pack(f"<{strips}I", *[8] * strips)
    tags = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 8 + 64, 277: 1, 278: 1}
    return _tiff(tags, bytes(64) + offsets, counts={273: strips})


def gif_comments(size: int = 20_000_000) -> bytes:
    """Return a GIF with *size* bytes of comments before its frame."""
    data = _saved(Image.new("P", (64, 64)), "GIF")
    frame = data.index(b"\x2c", 13 + 3 * 2)
    return data[:frame] + b"\x21\xfe" + (b"\x01c") * (size // 2) + b"\0" + data[frame:]


def fits_gzip(side: int = 9_000) -> bytes:
    """Return a FITS file with a gzip-compressed table of *side* x *side* zeros, which Pillow inflates in Python."""
    packed = gzip.compress(bytes(side * side), 9)
    primary = _fits_header(SIMPLE="T", BITPIX="8", NAXIS="0", EXTEND="T")
    table = _fits_header(
        XTENSION="'BINTABLE'",
        BITPIX="8",
        NAXIS="2",
        NAXIS1="8",
        NAXIS2="1",
        PCOUNT=str(len(packed)),
        GCOUNT="1",
        TFIELDS="1",
        ZIMAGE="T",
        ZCMPTYPE="'GZIP_1  '",
        ZBITPIX="8",
        ZNAXIS="2",
        ZNAXIS1=str(side),
        ZNAXIS2=str(side),
        ZTILE1=str(side),
        ZTILE2="1",
    )
    return primary + table + bytes(8) + packed


def ppm(side: int = 1000) -> bytes:
    """Return a plain PPM of *side* x *side* pixels, whose numbers Pillow reads in Python."""
    return f"P3\n{side} {side}\n255\n".encode() + b"0 " * (3 * side * side)


def jpeg2000_tiles(side: int = 250) -> bytes:
    """Return the head of a JPEG 2000 stream that has *side* x *side* tiles, for each of which a decoder makes room."""
    size = struct.pack(">HIIIIIIIIH3B", 0, side * 32, side * 32, 0, 0, 32, 32, 0, 0, 1, 7, 1, 1)
    style = bytes([0, 0, 0, 1, 0, 5, 4, 4, 0, 0])
    quantisation = bytes([0x40, *[0x40] * 16])
    segments = ((0x51, size), (0x52, style), (0x5C, quantisation))
    head = b"".join(struct.pack(">BBH", 0xFF, mark, len(body) + 2) + body for mark, body in segments)
    return b"\xff\x4f" + head + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 14, 0, 1) + b"\xff\x93\xff\xd9"


def eps() -> bytes:
    """Return an EPS file that Ghostscript would work on for ever."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 640 480\n%%EndComments\n{ } loop\nshowpage\n%%EOF\n"


def _saved(image: Image.Image, kind: str, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(tags: dict[int, int], content: bytes, counts: dict[int, int] | None = None) -> bytes:
    """Return a TIFF file: *content* at byte 8, then a directory with a number (or a place of numbers) for each tag."""
    entries = b"".join(struct.pack("<HHII", tag, 4, (counts or {}).get(tag, 1), tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags)) + entries + bytes(4)


def _fits_header(**cards: str) -> bytes:
    text = "".join(f"{name:<8}= {value:>20}".ljust(80) for name, value in cards.items()) + "END".ljust(80)
    return text.ljust(-(-len(text) // 2880) * 2880).encode()
