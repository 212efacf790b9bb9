"""immich-triton compare against two services that give recorded answers of a stock Immich ML, one of them altered."""

from __future__ import annotations

import json
import re
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from canned_gateway import BY_TRITON, FELL_BACK, CannedGateway, canned_gateway
from places import DATA
from recorder import Recorder, recording_upstream

from harness.ports import free_ports
from immich_triton.cli import compare as compare_command
from immich_triton.inspect import previews

RECEIPT = DATA / "images" / "zh_receipt.jpg"
OCR = json.loads((DATA / "stock" / "zh_receipt.jpg.ocr.json").read_text())

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def triton() -> Iterator[CannedGateway]:
    with canned_gateway() as gateway:
        gateway.answer = (200, json.dumps(altered(OCR)).encode())
        yield gateway


@pytest.fixture
def stock() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        recorder.answer = (200, json.dumps(OCR).encode())
        yield recorder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photos, all of the receipt."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (folder / name).write_bytes(RECEIPT.read_bytes())
    return folder


def png_header(width: int, height: int) -> bytes:
    """Return the beginning of a PNG of that size, which is all that Pillow looks at before it refuses."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"]
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def altered(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with one character changed and the last line missing."""
    ocr = {key: list(values) for key, values in answer["ocr"].items()}
    ocr["text"][2] = "合计<76.90"
    for key, count in (("box", 8), ("boxScore", 1), ("text", 1), ("textScore", 1)):
        del ocr[key][-count:]
    return {**answer, "ocr": ocr}


@pytest.fixture
def run(triton: CannedGateway, stock: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    report = tmp_path / "report.html"

    def compare(*arguments: object) -> tuple[int, str, str]:
        """Return the exit code, the report and what was printed."""
        line = ["--url", triton.url, "--stock", stock.url, "--report", str(report), *map(str, arguments)]
        code = compare_command.main(line)
        printed = capsys.readouterr()
        return code, report.read_text() if report.exists() else "", printed.out + printed.err

    return compare


def test_the_report_shows_what_differs(run: Run, triton: CannedGateway, stock: Recorder) -> None:
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


def test_both_sides_get_the_same_preview(run: Run, triton: CannedGateway, stock: Recorder) -> None:
    run(RECEIPT, "--task", "ocr")
    (ours,), (theirs,) = triton.bodies, stock.predictions()
    assert previews.preview(RECEIPT) in ours
    assert previews.preview(RECEIPT) in theirs.body


def test_equal_answers_are_told_so(run: Run, triton: CannedGateway, stock: Recorder) -> None:
    triton.answer = stock.answer
    _, report, _ = run(RECEIPT, "--task", "ocr")
    assert "<section class=same>" in report
    assert "<mark>" not in report.partition("<section")[2]


def test_says_when_triton_was_never_asked(run: Run, triton: CannedGateway) -> None:
    triton.timing = lambda _number: ""
    code, report, printed = run(RECEIPT, "--task", "ocr")
    assert code == 1
    assert "ocr was not answered by Triton" in printed
    assert "not answered by Triton: it passed through to the stock ML" in report
    assert re.search(r"likeness\W+–", printed), "nothing is alike where nothing was compared"


def test_a_photo_that_the_stock_ml_answered_on_both_sides_is_a_failure(
    run: Run, triton: CannedGateway, photos: Path
) -> None:
    triton.timing = lambda number: FELL_BACK if number == 2 else BY_TRITON
    code, report, printed = run(photos, "--task", "ocr")
    assert code == 1
    assert report.count("Triton was away, and the stock ML answered in its place") == 1
    assert re.search(r"failed\W+1\W", printed)
    assert "ocr was not answered by Triton" not in printed


def test_failures_are_in_the_report(run: Run, triton: CannedGateway, tmp_path: Path) -> None:
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


def test_a_photo_too_large_for_pillow_is_a_failure_of_its_own(run: Run, photos: Path) -> None:
    (photos / "vast.png").write_bytes(png_header(20_000, 10_000))
    code, report, printed = run(photos, "--task", "ocr")
    assert code == 1
    assert re.search(r"vast\.png.*cannot be read: Image size \(200000000 pixels\) exceeds limit", report)
    assert re.search(r"images\W+3\W", printed)


def test_what_cannot_be_compared_is_told(run: Run, photos: Path) -> None:
    for name in ("a.HEIC", "b.heic", "c.dng", "notes"):
        (photos / name).write_bytes(b"")
    (photos / "deeper").mkdir()
    (photos / "deeper" / "d.heic").write_bytes(b"")
    _, _, printed = run(photos, "--task", "ocr")
    told = "compare: skipped 5 files that are no JPEG, PNG, WebP, TIFF, BMP or GIF (3 .heic, 1 .dng, 1 without ending)"
    assert told in printed


@dataclass
class Compare:
    """The command in a process of its own, which Ctrl-C is meant for."""

    process: subprocess.Popen[str] | None = None

    def run(self, *arguments: object) -> tuple[int, str]:
        """Return the exit code and what was printed."""
        # As from a terminal, also where the tests are a background job of a shell, which ignores it.
        code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code += "from immich_triton.cli.compare import main; sys.exit(main(sys.argv[1:]))"
        line = [sys.executable, "-c", code, *map(str, arguments)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as self.process:
            printed, _ = self.process.communicate(timeout=120)
        return self.process.returncode, printed

    def press_ctrl_c(self) -> None:
        """Press it now."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(("pressed_at", "compared"), [(3, 2), (1, 0)])
def test_ctrl_c_leaves_a_report_of_what_there_is(
    triton: CannedGateway, stock: Recorder, photos: Path, tmp_path: Path, pressed_at: int, compared: int
) -> None:
    compare, report = Compare(), tmp_path / "report.html"
    triton.before_answering = lambda number: compare.press_ctrl_c() if number == pressed_at else None
    servers = ("--url", triton.url, "--stock", stock.url)
    code, printed = compare.run(photos, *servers, "--report", report, "--task", "ocr")
    assert (code, f"compare: stopped after {compared} of 3 photos" in printed) == (130, True), printed
    assert report.exists() == bool(compared)
    if compared:
        assert "the first 2 of 3 photos" in report.read_text()
        assert report.read_text().count("<section") == 2


def test_a_report_that_cannot_be_written_is_told_before_anything_is_asked(
    run: Run, triton: CannedGateway, tmp_path: Path
) -> None:
    code, _, printed = run(RECEIPT, "--report", tmp_path / "missing" / "report.html")
    assert code == 1
    assert "compare: cannot write the report: " in printed
    assert "choose another file with --report" in printed
    assert triton.bodies == []


def test_the_report_does_not_tell_the_token(run: Run, triton: CannedGateway, stock: Recorder) -> None:
    _, report, _ = run(RECEIPT, "--task", "ocr", "--url", f"{triton.url}/secret")
    assert f"{triton.url}/… against {stock.url}" in report
    assert "secret" not in report


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
