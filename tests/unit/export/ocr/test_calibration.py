"""The pages that an export is calibrated with: what the detector takes, small, of every writing, not of the exam."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import calibration_pages as program
import numpy as np
import pytest
from PIL import Image
from unit.lab.test_eval_ocr import needs_fonts

from immich_triton.export.ocr import calibration
from ocr_eval import fonts, phrases, scenes
from ocr_eval.calibration import calibration_pages
from ocr_eval.pages import Page

MADE_WITH: Final = "db8f94361e4647e99ce55af8105d2d5cde847e38501ecda6a8b2fdc067bed328"
"""`fonts.fonts_digest` of Debian 12, where the committed pages were rendered."""

needs_these_fonts = pytest.mark.skipif(
    not fonts.missing_packages() and fonts.fonts_digest() != MADE_WITH,
    reason="the Debian fonts here are of another version than those of the committed pages",
)


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    return list(calibration_pages())


# What the package carries


def test_the_detector_takes_every_page_as_it_is() -> None:
    for jpeg in calibration.pages():
        image = Image.open(io.BytesIO(jpeg))
        image.load()
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert sorted(image.size) == [736, 992]
        assert not any(side % 32 for side in image.size)


def test_the_pages_are_few_and_small() -> None:
    sizes = [len(jpeg) for jpeg in calibration.pages()]
    assert 8 <= len(sizes) <= 10
    assert all(60_000 < size < 110_000 for size in sizes)
    assert sum(sizes) < 900_000


def test_the_pages_come_in_the_order_of_their_names() -> None:
    names = [path.name for path in calibration.files()]
    assert names == sorted(names)
    assert [path.read_bytes() for path in calibration.files()] == calibration.pages()


def test_it_says_which_photos_are_in_them_and_under_which_licence() -> None:
    said = calibration.__doc__ or ""
    for name, licence in (("08", "public domain"), ("09", "CC0")):
        assert any(path.name.startswith(name) for path in calibration.files())
        assert licence in said.split(f"``{name}``")[1]


def test_there_is_dark_and_light() -> None:
    means = [np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).mean() for jpeg in calibration.pages()]
    assert min(means) < 60
    assert max(means) > 220


# What renders them


@needs_fonts
@needs_these_fonts
def test_the_program_renders_what_the_package_carries(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--check"]) == 0
    assert f"{len(calibration.pages())} pages" in capsys.readouterr().out


@needs_fonts
def test_pages_that_are_other_missing_or_too_many_are_named(
    pages: list[Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "FOLDER", tmp_path)
    monkeypatch.setattr(program, "calibration_pages", lambda: pages)
    (tmp_path / "older.jpg").touch()
    assert program.main([]) == 0
    assert calibration.pages() == [page.jpeg for page in pages], "the older page is gone"
    assert program.main(["--check"]) == 0
    other, missing = calibration.files()[:2]
    other.write_bytes(pages[1].jpeg)
    missing.unlink()
    (tmp_path / "more.jpg").touch()
    capsys.readouterr()
    assert program.main(["--check"]) == 1
    message = capsys.readouterr().err
    assert f"{other.stem}, {missing.stem}, more in" in message
    assert "run .venv/bin/python scripts/lab/calibration_pages.py" in message


@needs_fonts
def test_a_page_that_lacks_its_smallest_line_is_another(pages: list[Page]) -> None:
    for page in pages:
        image = Image.open(io.BytesIO(page.jpeg))
        line = min(page.lines, key=lambda line: float(np.ptp(line.quad, axis=0).prod()))
        left, top, right, bottom = (int(edge) for edge in (*line.quad.min(axis=0), *line.quad.max(axis=0)))
        image.paste(image.getpixel((left, top)), (left, top, right, bottom))  # type: ignore[arg-type]
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        assert not program._alike(buffer.getvalue(), page.jpeg), page.name


def test_missing_fonts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "FONT_FOLDER", tmp_path)
    assert program.main(["--check"]) == 1
    assert "apt-get install" in capsys.readouterr().err


# What is on them


@needs_fonts
def test_there_are_lines_of_every_length(pages: list[Page]) -> None:
    lengths = [len(line.text) for page in pages for line in page.lines]
    assert 110 <= len(lengths) <= 140
    assert min(lengths) < 7
    assert sum(length >= 25 for length in lengths) >= 20


@needs_fonts
def test_no_line_leaves_its_page(pages: list[Page]) -> None:
    for page in pages:
        for line in page.lines:
            assert line.quad.min() >= 0, (page.name, line.text)
            assert (line.quad.max(axis=0) <= [page.width, page.height]).all(), (page.name, line.text)


@needs_fonts
def test_every_writing_is_there(pages: list[Page]) -> None:
    text = "".join(line.text for page in pages for line in page.lines)
    kinds = {unicodedata.name(character).split()[0] for character in text if character != " "}
    assert {"CJK", "HIRAGANA", "KATAKANA", "LATIN", "DIGIT", "FULLWIDTH", "EURO", "YEN"} <= kinds
    # 们 is in no traditional text, 們 in no simplified one: these sets of characters hold one orthography each.
    han = {character for character in text if "\u4e00" <= character <= "\u9fff"}
    for codec, other in (("gb2312", "big5"), ("big5", "gb2312")):
        assert sum(encodes(character, codec) and not encodes(character, other) for character in han) > 100
    assert "https://" in text
    assert "@" in text


def encodes(character: str, codec: str) -> bool:
    return len(character.encode(codec, errors="ignore")) == 2


@needs_fonts
def test_columns_are_tall(pages: list[Page]) -> None:
    (page,) = (page for page in pages if page.name.endswith("columns"))
    for line in page.lines:
        width, height = np.ptp(line.quad, axis=0)
        assert height > 4 * width


@needs_fonts
def test_nothing_of_the_exam_is_on_them(pages: list[Page]) -> None:
    lines = [line.text.casefold() for page in pages for line in page.lines]
    texts = [text.casefold() for text in exam_texts()]
    assert len(texts) > 300
    assert [text for text in texts if any(text in line for line in lines)] == []
    pieces = {line[start : start + 3] for line in lines for start in range(len(line) - 2)}
    han = {piece for piece in pieces if all("\u4e00" <= character <= "\u9fff" for character in piece)}
    assert [text for text in texts if any(text[start : start + 3] in han for start in range(len(text) - 2))] == []


def exam_texts() -> Iterator[str]:
    """Yield what the exam and its scenes are written with."""
    pools = [pool for name, pool in vars(phrases).items() if name.isupper()]
    for pool in (*pools, *scenes.PLACES):
        for entry in pool:
            yield from [entry] if isinstance(entry, str) else entry
