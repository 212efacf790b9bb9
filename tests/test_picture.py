"""The header parser agrees with Pillow, and survives anything."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from immich_triton.picture import UNKNOWN, Picture, picture_of


def encoded(format_: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 77).save(file, format_, **options)
    return file.getvalue()


@pytest.mark.parametrize("size", [(1440, 1080), (1, 1), (300, 65), (16, 4000)])
@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "icc_profile": b"x" * 70_000, "comment": b"\xff\xc0"}),
        ("PNG", {}),
        ("GIF", {}),
        ("WebP", {}),
        ("WebP", {"lossless": True}),
        ("WebP", {"exif": b"Exif\0\0"}),
        ("BMP", {}),
    ],
)
def test_reads_what_pillow_wrote(format_: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    assert picture_of(encoded(format_, size, **options)) == Picture(format_, *size)


def test_an_alpha_channel_makes_an_extended_webp() -> None:
    assert picture_of(encoded("WebP", (33, 44), "RGBA")) == Picture("WebP", 33, 44)


def test_names_formats_whose_size_it_does_not_read() -> None:
    assert picture_of(encoded("TIFF", (3, 4))) == Picture("TIFF")
    assert picture_of(b"\0\0\0\x18ftypheic" + bytes(8)) == Picture("HEIC")
    assert picture_of(b"\0\0\0\x18ftypavif" + bytes(8)) == Picture("AVIF")
    assert picture_of(b"no image") == UNKNOWN


@given(st.sampled_from(["JPEG", "PNG", "GIF", "WebP", "BMP"]), st.integers(0, 200), st.binary(max_size=60))
def test_a_torn_file_is_no_error(format_: str, length: int, tail: bytes) -> None:
    picture = picture_of(encoded(format_, (20, 10))[:length] + tail)
    assert picture.width >= 0
    assert picture.height >= 0
    assert picture_of(tail).format


def test_file_name_endings() -> None:
    assert [Picture(name).extension for name in ("JPEG", "WebP", "unknown format")] == [".jpg", ".webp", ".bin"]
