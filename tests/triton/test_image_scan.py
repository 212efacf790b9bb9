"""The look at an image file before it is decoded: what costs too much is refused, what cameras write is not."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import poison
import pytest
from PIL import Image, ImageFile

from immich_pipelines.decode import open_rgb, size_of
from immich_pipelines.decoding import jpeg
from immich_pipelines.decoding.findings import Scan
from immich_pipelines.decoding.scan import FORMATS, scan
from immich_pipelines.errors import BadInput

IMAGES = Path(__file__).resolve().parents[1] / "data" / "images"
REASONS = {
    "jpeg-scans": "more than 100 scans",
    "jpeg-exif": "more than 4 EXIF segments",
    "jpeg-comments": "more than 1024 segments",
    "jpeg-fill": "more than 4096 stray bytes",
    "png-chunks": "or 256 others",
    "tiff-tile": "stored in tiles of 16384x36000",
    "tiff-strips": "2000000 strips or tiles; 64 make up the picture",
    "gif-comments": "more than 4096 blocks",
    "fits-gzip": "no image in a known format",
    "ppm": "no image in a known format",
    "jpeg2000-tiles": "no image in a known format",
    "eps": "no image in a known format",
}


def saved(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_poison_is_refused_before_a_decoder_sees_it(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image, "open", load)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(BadInput, match=reason):
        open_rgb(poison.samples()[name])


def test_every_sample_is_tried() -> None:
    assert REASONS.keys() == poison.samples().keys()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_size_is_told_without_decoding(kind: str) -> None:
    data = saved(kind, (53, 31))
    assert size_of(data) == (31, 53)
    found = scan(data)
    assert (found.format, found.width, found.height) == (kind, 53, 31)
    assert not found.heavy


@pytest.mark.parametrize("kind", ["ICO", "PPM", "JPEG2000", "TGA", "PCX", "SGI", "DDS", "QOI", "EPS"])
def test_formats_that_nobody_bounded_are_refused(kind: str) -> None:
    with pytest.raises(BadInput, match=r"no image in a known format .*JPEG.*convert it"):
        scan(saved(kind))


def test_what_a_camera_writes_is_taken() -> None:
    """A progressive photo with all the metadata there is, and another photo behind it, as phones have it."""
    data = saved("JPEG", (300, 200), progressive=True, exif=Image.Exif(), icc_profile=bytes(200_000), comment=b"me")
    extended = b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)
    depth_map = (struct.pack(">BBH", 0xFF, 0xE1, len(extended) + 2) + extended) * 160
    photo = data[:2] + depth_map + data[2:] + data

    found = scan(photo)

    assert (found.width, found.height) == (300, 200)
    assert 2 <= found.passes <= 12  # those of the photo behind it do not count
    assert open_rgb(photo).size == (300, 200)


def test_all_that_is_behind_a_jpegs_only_scan_is_nobodys_concern() -> None:
    data = saved("JPEG")
    assert scan(data[:-2] + bytes(range(256)) * 2000).passes == 1


@pytest.mark.parametrize("more", range(-2, 3))
def test_a_marker_is_found_across_the_border_of_what_is_searched_at_a_time(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved("JPEG", (300, 200), progressive=True)
    passes = scan(data).passes
    monkeypatch.setattr(jpeg, "_WINDOW", 64 + more)
    assert scan(data).passes == passes


@pytest.mark.parametrize(("scans", "reason"), [(90, None), (130, "more than 100 scans")])
def test_scans_are_bounded(scans: int, reason: str | None) -> None:
    data = poison.jpeg_scans(64, scans)
    if reason is None:
        assert scan(data).passes > scans
    else:
        with pytest.raises(BadInput, match=reason):
            scan(data)


def test_many_scans_of_many_pixels_are_refused_together() -> None:
    data = bytearray(poison.jpeg_scans(64, 60))
    size = data.index(b"\xff\xc2") + 5
    data[size : size + 4] = struct.pack(">HH", 9000, 9000)
    with pytest.raises(BadInput, match="would take too long to decode"):
        scan(bytes(data))


def test_a_heavy_image_is_known_as_one() -> None:
    assert not Scan("JPEG", 1440, 1920, passes=10).heavy
    assert not Scan("JPEG", 6000, 4000).heavy
    assert Scan("JPEG", 6000, 4000, passes=10).heavy
    assert Scan("PNG", 8000, 8000).heavy
    assert Scan("TIFF", 64, 64, decoded=60_000_000).heavy


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_or_damaged_head_is_bad_input(kind: str) -> None:
    data = saved(kind)
    for length in range(min(len(data), 400)):
        for junk in (b"", b"\xff" * 40):
            try:
                scan(data[:length] + junk)
            except BadInput:
                continue


@pytest.mark.parametrize("name", sorted(path.name for path in IMAGES.iterdir()))
def test_the_example_images_pass(name: str) -> None:
    data = (IMAGES / name).read_bytes()
    height, width = size_of(data)
    assert open_rgb(data).size == (width, height)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", None])
def test_tiff_files_as_they_are_written(compression: str | None) -> None:
    data = saved("TIFF", (500, 400), compression=compression)
    assert open_rgb(data).size == (500, 400)


def test_tiff_compressions_whose_memory_the_file_decides_are_refused() -> None:
    with pytest.raises(BadInput, match="compression 34925, which is not supported"):
        scan(saved("TIFF", compression="lzma"))


def test_run_lengths_are_bounded_where_python_decodes_them() -> None:
    data = bytearray(saved("BMP", mode="L"))
    data[30] = 1
    assert scan(bytes(data)).passes > 1
    with pytest.raises(BadInput, match="run-length"):
        scan(bytes(data) + bytes(4_000_000))


def test_the_bounds_leave_room_for_large_metadata() -> None:
    profile = saved("JPEG", icc_profile=bytes(65_519 * 255 - 300))
    assert profile.count(b"ICC_PROFILE") == 255 < jpeg.MAX_SEGMENTS
    assert scan(profile).width == 40
