import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from immich_pipelines.decode import decode_rgb, open_rgb
from immich_pipelines.errors import BadInput

RANDOM = np.random.default_rng(11)
# Smooth, so that lossy formats stay close to it.
PICTURE = Image.fromarray(RANDOM.integers(0, 255, (3, 4, 3), dtype=np.uint8)).resize((37, 23), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sixteen_bit_grey() -> Image.Image:
    return Image.fromarray(RANDOM.integers(0, 65535, (23, 37), dtype=np.uint16))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (PICTURE, "PNG"),
        (PICTURE, "JPEG"),
        (PICTURE, "WEBP"),
        (PICTURE, "BMP"),
        (PICTURE, "TIFF"),
        (PICTURE, "GIF"),
        (PICTURE.convert("L"), "JPEG"),
        (PICTURE.convert("CMYK"), "JPEG"),
        (PICTURE.convert("P"), "PNG"),
        (PICTURE.convert("1"), "PNG"),
        (PICTURE.convert("LA"), "PNG"),
        (PICTURE.convert("RGBA"), "PNG"),
        (PICTURE.convert("RGBA"), "WEBP"),
        (sixteen_bit_grey(), "PNG"),
        (sixteen_bit_grey(), "TIFF"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_pixels_are_those_of_pillow(image: Image.Image, kind: str) -> None:
    data = encode(image, kind)

    pixels = decode_rgb(data)

    assert pixels.dtype == np.uint8
    assert pixels.shape == (23, 37, 3)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_lossless_pixels_come_back() -> None:
    np.testing.assert_array_equal(decode_rgb(encode(PICTURE, "PNG")), np.asarray(PICTURE))


def test_the_order_is_red_green_blue() -> None:
    assert decode_rgb(encode(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG")).tolist() == [[[10, 20, 30]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)

    np.testing.assert_array_equal(decode_rgb(data), np.asarray(frames[0]))


def test_transparency_is_dropped_and_not_blended() -> None:
    assert decode_rgb(encode(Image.new("RGBA", (1, 1), (200, 100, 50, 0)), "PNG")).tolist() == [[[200, 100, 50]]]


def test_exif_does_not_rotate() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"; Immich's preview is upright already

    assert decode_rgb(encode(PICTURE, "JPEG", exif=exif)).shape == (23, 37, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"a text, not an image", "no image in a known format"),
        (b"\x89PNG\r\n\x1a\n", "no image in a known format|cannot be decoded"),
        (encode(PICTURE, "PNG")[:-40], "cannot be decoded"),
        (encode(PICTURE, "JPEG")[:400], "cannot be decoded"),
        (encode(PICTURE, "WEBP")[:60], "no image in a known format|cannot be decoded"),
    ],
    ids=["empty", "text", "signature", "cut PNG", "cut JPEG", "cut WebP"],
)
def test_what_is_no_whole_image_is_bad_input(data: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        decode_rgb(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_bytes_give_pixels_or_bad_input_and_nothing_else(kind: str) -> None:
    whole = encode(PICTURE, kind)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in RANDOM.integers(0, len(whole), 4):
            damaged[place] = int(RANDOM.integers(0, 256))
        try:
            pixels = decode_rgb(bytes(damaged), max_pixels=10_000_000)
        except BadInput:
            continue
        assert pixels.ndim == 3


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and has no pixels: 60 bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    with pytest.raises(BadInput, match="more than the allowed 100000000"):
        decode_rgb(png_header(width, height))


def test_the_bound_can_be_set_and_is_inclusive() -> None:
    data = encode(PICTURE, "PNG")

    assert open_rgb(data, max_pixels=37 * 23).size == (37, 23)
    with pytest.raises(BadInput, match="37x23 pixels, more than the allowed 850"):
        open_rgb(data, max_pixels=37 * 23 - 1)
