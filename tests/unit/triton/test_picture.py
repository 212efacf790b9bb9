"""The header parser agrees with Pillow, and survives anything."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from immich_pipelines.large import PIXELS, RATIO, is_large
from immich_triton.triton.picture import LARGE_PIXELS, LARGE_RATIO, UNKNOWN, Picture, picture_of


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


@pytest.mark.parametrize(
    ("size", "large"),
    [
        ((1440, 1080), False),
        ((4000, 2000), False),
        ((4000, 2001), True),
        ((600, 100), False),
        ((601, 100), True),
        ((100, 601), True),
        ((1, 1), False),
        ((1080, 53_000), True),
    ],
)
def test_gateway_and_pipelines_call_the_same_images_large(size: tuple[int, int], large: bool) -> None:
    data = encoded("PNG", size, "1")
    assert picture_of(data).large is large
    assert is_large(data) is large


def test_gateway_and_pipelines_agree_on_what_is_large() -> None:
    """They share no code, and an image that only one of them calls large takes the other's last free process."""
    assert (LARGE_PIXELS, LARGE_RATIO) == (PIXELS, RATIO)


def test_what_hides_its_size_may_be_large_and_what_is_no_image_is_not() -> None:
    assert Picture("TIFF").large
    assert picture_of(b"\xff\xd8" + b"\xff\xe1\0\2" * 5000 + encoded("JPEG", (20, 10))[2:]).large
    assert not picture_of(b"").large
    assert not picture_of(b"no image").large
    assert not is_large(b"no image")


@pytest.mark.parametrize("unit", [b"\xff", b"\xff\xfe\0\2", b"\xff\xe1\0\2"])
def test_thirty_megabytes_before_the_size_cost_nothing(unit: bytes) -> None:
    data = b"\xff\xd8" + unit * (30_000_000 // len(unit))
    started = time.process_time()
    assert picture_of(data) == Picture("JPEG")
    assert time.process_time() - started < 1  # seven million segments take ten times as long
