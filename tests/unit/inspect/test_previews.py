"""Photos become what Immich sends to its machine learning."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from places import DATA

from immich_triton.inspect import previews


def test_previews_are_as_immich_makes_them(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    image = Image.linear_gradient("L").resize((4000, 3000)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    image.save(photo, exif=exif)
    data = previews.preview(photo)
    (tmp_path / "preview.jpg").write_bytes(data)
    with Image.open(tmp_path / "preview.jpg") as preview, Image.open(photo) as opened:
        assert preview.size == (1440, 1920)
        assert not preview.getexif()
        upright = ImageOps.exif_transpose(opened).resize(preview.size)
        pixels = (image.resize((8, 8)).tobytes() for image in (preview, upright))
        difference = max(abs(a - b) for a, b in zip(*pixels, strict=True))
        assert difference < 4
    small = tmp_path / "small.png"
    image.resize((300, 200)).convert("RGBA").save(small)
    (tmp_path / "preview.jpg").write_bytes(previews.preview(small))
    with Image.open(tmp_path / "preview.jpg") as preview:
        assert (preview.size, preview.format, preview.mode) == ((300, 200), "JPEG", "RGB")


def test_a_sample_is_spread_evenly() -> None:
    files = [Path(str(index)) for index in range(10)]
    assert [int(path.name) for path in previews.sample(files, 4)] == [0, 2, 5, 7]
    assert previews.sample(files, 0) == previews.sample(files, 99) == files


def test_the_images_below_a_folder_are_found_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name in ("b.JPG", "a.png", "deeper/c.webp", "notes.txt", "d.HEIC", "e.heic", "README"):
        (tmp_path / name).touch()
    named = tmp_path / "notes.txt"
    found = previews.find([tmp_path, tmp_path / "b.JPG", named])
    assert found.files == sorted([tmp_path / "a.png", tmp_path / "b.JPG", tmp_path / "deeper/c.webp", named])
    assert found.others == Counter({".heic": 2, "without ending": 1}), "a file that is named is one of them"
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        previews.find([tmp_path / "nowhere"])


def test_what_was_left_aside_is_told_by_kind() -> None:
    few = Counter({".txt": 1, ".heic": 3, ".dng": 1})
    assert previews.skipped(few).endswith("(3 .heic, 1 .dng, 1 .txt)")
    many = Counter({f".{number}": 1 for number in range(previews.KINDS + 1)})
    assert previews.skipped(many).startswith(f"skipped {previews.KINDS + 1} files that are no JPEG")
    assert previews.skipped(many).endswith(", …)")


@pytest.mark.parametrize(
    ("size", "shrunk"),
    [((100, 300), (50, 150)), ((300, 100), (150, 50)), ((50, 9), (50, 9)), ((50, 5000), (50, 5000))],
)
def test_the_shorter_side_counts(size: tuple[int, int], shrunk: tuple[int, int]) -> None:
    assert previews.shrunk(Image.new("RGB", size), 50).size == shrunk


def test_a_picture_in_a_report_is_small() -> None:
    data = previews.preview(DATA / "images/astronaut.jpg")
    with Image.open(io.BytesIO(previews.thumbnail(data))) as image:
        assert image.format == "JPEG"
        assert max(image.size) <= previews.THUMBNAIL


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(OSError, match="cannot identify image file"):
        previews.preview(tmp_path / "a.jpg")
