"""scripts/compare.py against two services that give recorded answers of a stock Immich ML, one of them altered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import compare as compare_command
import pytest
from embedded_triton import free_ports
from PIL import Image, ImageOps
from recorder import Recorder, recording_upstream
from toolbox import previews
from toolbox.comparison_report import marked

DATA = Path(__file__).parent / "data"
RECEIPT = DATA / "images" / "zh_receipt.jpg"
OCR = json.loads((DATA / "stock" / "zh_receipt.jpg.ocr.json").read_text())

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def triton() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        recorder.answer = (200, json.dumps(altered(OCR)).encode())
        yield recorder


@pytest.fixture
def stock() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        recorder.answer = (200, json.dumps(OCR).encode())
        yield recorder


def altered(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with one character changed and the last line missing."""
    ocr = {key: list(values) for key, values in answer["ocr"].items()}
    ocr["text"][2] = "合计<76.90"
    for key, count in (("box", 8), ("boxScore", 1), ("text", 1), ("textScore", 1)):
        del ocr[key][-count:]
    return {**answer, "ocr": ocr}


@pytest.fixture
def run(triton: Recorder, stock: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def compare(*arguments: object) -> tuple[int, str, str]:
        """Return the exit code, the report and what was printed."""
        report = tmp_path / "report.html"
        line = ["--url", triton.url, "--stock", stock.url, "--report", str(report), *map(str, arguments)]
        code = compare_command.main(line)
        printed = capsys.readouterr()
        return code, report.read_text() if report.exists() else "", printed.out + printed.err

    return compare


def test_the_report_shows_what_differs(run: Run, triton: Recorder, stock: Recorder) -> None:
    code, report, printed = run(RECEIPT, "--task", "ocr")
    assert code == 0
    assert "ocr 8 of 8/9 lines match" in report
    assert report.count('<polygon class="ours"') == 8
    assert report.count('<polygon class="theirs"') == 9
    assert "合计<mark>&lt;</mark>76.90" in report
    assert "合计<mark>¥</mark>76.90" in report
    assert f"<mark>{OCR['ocr']['text'][8]}</mark>" in report
    # It is one file: nothing in it is fetched from elsewhere.
    assert 'src="data:image/jpeg;base64,' in report
    assert "http" not in report.replace(triton.url, "").replace(stock.url, "")
    assert re.search(r"stock only\W+1\W", printed)


def test_both_sides_get_the_same_preview(run: Run, triton: Recorder, stock: Recorder) -> None:
    run(RECEIPT, "--task", "ocr")
    (ours,), (theirs,) = triton.predictions(), stock.predictions()
    assert previews.preview(RECEIPT) in ours.body
    assert previews.preview(RECEIPT) in theirs.body


def test_equal_answers_are_told_so(run: Run, triton: Recorder, stock: Recorder) -> None:
    triton.answer = stock.answer
    _, report, _ = run(RECEIPT, "--task", "ocr")
    assert "<section class=same>" in report
    assert "<mark>" not in report.partition("<section")[2]


def test_says_when_triton_was_never_asked(run: Run) -> None:
    assert "ocr was not answered by Triton" in run(RECEIPT, "--task", "ocr")[2]


def test_failures_are_in_the_report(run: Run, triton: Recorder, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "torn.jpg").write_bytes(RECEIPT.read_bytes()[:5000])
    (photos / "whole.png").write_bytes((DATA / "images" / "tiny_16px.png").read_bytes())
    (photos / "notes.txt").write_text("no photo")
    triton.answer = (503, b'{"detail":"ocr gave no answer within 120 s"}')
    code, report, _ = run(photos, "--task", "ocr")
    assert code == 1
    assert "torn.jpg" in report
    assert "cannot be read" in report
    assert "Triton answered 503: ocr gave no answer within 120 s" in report
    assert "notes.txt" not in report


def test_names_of_files_are_no_markup(run: Run, tmp_path: Path) -> None:
    photo = tmp_path / "<script>.png"
    photo.write_bytes((DATA / "images" / "tiny_16px.png").read_bytes())
    assert "<script>" not in run(photo, "--task", "ocr")[1]


def test_nobody_there(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    code, report, printed = run(RECEIPT, "--stock", nobody)
    assert (code, report) == (1, "")
    assert f"the stock Immich ML does not answer at {nobody}" in printed
    assert "does not exist" in run("/no/such/folder")[2]


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


def test_marks() -> None:
    assert marked("a<b", "a&b") == ("a<mark>&lt;</mark>b", "a<mark>&amp;</mark>b")
    assert marked("same", "same") == ("same", "same")
    assert marked("", "new") == ("", "<mark>new</mark>")
