"""Two services are asked the same questions, and how their answers differ is gathered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from canned_gateway import BY_TRITON, FAILED_TO_FALL_BACK, FELL_BACK, CannedGateway, canned_gateway
from places import DATA
from recorder import Recorder, recording_upstream
from rich.console import Console

from harness.ports import free_ports
from immich_triton.immich.ml_client import Answer
from immich_triton.inspect import comparisons, previews
from immich_triton.inspect.comparing import Comparison
from immich_triton.inspect.comparison_report import render
from immich_triton.inspect.comparisons import Album, Outcome, Picture, ask_both, by_triton, not_routed, summarise, table

RECEIPT = DATA / "images" / "zh_receipt.jpg"
OCR = json.loads((DATA / "stock" / "zh_receipt.jpg.ocr.json").read_text())


@pytest.fixture(scope="module")
def triton() -> Iterator[CannedGateway]:
    with canned_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def stock() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(autouse=True)
def as_recorded(triton: CannedGateway, stock: Recorder) -> None:
    triton.answer = stock.answer = (200, json.dumps(OCR).encode())
    triton.timing = lambda _number: BY_TRITON
    triton.bodies.clear()
    stock.seen.clear()


def test_only_the_photos_that_differ_most_are_pictured() -> None:
    album = Album(most=2)
    for number, likeness in enumerate([0.5, 1.0, 0.2, 0.9, None]):
        comparison = None if likeness is None else Comparison("ocr", 1, 1, (), (), (), likeness, ())
        answer = Answer(200, {"ocr": OCR["ocr"]}, 0.0)
        outcome = Outcome("ocr", answer, answer, comparison, "" if comparison else "Triton answered 503")
        album.add(Picture(Path(f"{number}.jpg"), b"picture", (outcome,)))
    assert [picture.path.stem for picture in album.pictures if picture.thumbnail] == ["0", "2"]
    report = render(album, [], "five photos")
    assert report.count("<img") == 2
    assert report.count("<section") == 5
    assert "Only the 2 photos that differ most are pictured; of 3 others there is the text." in report


def test_of_many_photos_little_stays_in_memory(triton: CannedGateway, stock: Recorder) -> None:
    faces = (DATA / "stock" / "astronaut.jpg.faces.json").read_bytes()
    triton.answer = stock.answer = (200, faces)
    (picture, *_) = comparisons.ask_both([RECEIPT], ["faces"], triton.url, stock.url, {})
    (outcome,) = picture.outcomes
    assert outcome.comparison
    assert outcome.ours
    # Neither the preview, nor embeddings that no report shows.
    assert len(picture.thumbnail) < len(previews.preview(RECEIPT)) / 2
    assert "embedding" not in json.dumps(outcome.ours.body)


def compared(likeness: float, seconds: float = 1.0, task: str = "ocr", **more: Any) -> Outcome:
    answer = Answer(200, {}, seconds, {"Server-Timing": BY_TRITON})
    found = {"ours": 1, "theirs": 1, "pairs": (), "only_ours": (), "only_theirs": (), "details": (), **more}
    return Outcome(task, answer, Answer(200, {}, 2 * seconds), Comparison(task, likeness=likeness, **found))


def picture(*outcomes: Outcome) -> Picture:
    return Picture(Path("photo.jpg"), b"", outcomes)


FAILED = Outcome("ocr", None, None, error="nobody answers")


def ask(triton: CannedGateway, stock_url: str, path: Path = RECEIPT) -> Outcome:
    ((outcome,),) = (one.outcomes for one in ask_both([path], ["ocr"], triton.url, stock_url, {}))
    return outcome


def test_both_sides_are_asked_for_the_model_that_is_wished(triton: CannedGateway, stock: Recorder) -> None:
    pictures = list(ask_both([RECEIPT] * 2, ["ocr"], triton.url, stock.url, {"ocr": "mine"}))
    assert [one.same for one in pictures] == [True, True]
    assert all(b'"modelName": "mine"' in body for body in triton.bodies)
    assert len(triton.bodies) == len(stock.predictions()) == 2


def test_what_cannot_be_compared_says_why(triton: CannedGateway, stock: Recorder, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    assert "cannot be read: cannot identify image file" in ask(triton, stock.url, tmp_path / "torn.jpg").error
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert ask(triton, nobody).error.startswith(f"{nobody} did not answer: ")
    stock.answer = (500, b'{"detail": "no memory"}')
    assert ask(triton, stock.url).error == "stock answered 500: no memory"
    stock.answer = (200, b"{}")
    assert "cannot be compared" in ask(triton, stock.url).error


def test_an_answer_of_the_stock_ml_is_not_compared_with_itself(triton: CannedGateway, stock: Recorder) -> None:
    triton.timing = lambda _number: ""
    passed = ask(triton, stock.url)
    assert passed.error == "not answered by Triton: it passed through to the stock ML"
    assert not_routed([picture(passed)]) == ["ocr"]
    triton.timing = lambda _number: FELL_BACK
    assert "immich_fallback_tasks" in ask(triton, stock.url).error
    triton.timing = lambda _number: BY_TRITON
    assert not_routed([picture(passed), picture(ask(triton, stock.url))]) == []


def test_who_answered_is_said_by_the_gateway() -> None:
    for said, ours in ((BY_TRITON, True), (FELL_BACK, False), (FAILED_TO_FALL_BACK, True), ("", False)):
        assert by_triton(Answer(200, {}, 0.1, {"Server-Timing": said})) == ours


def test_the_least_alike_task_is_what_a_photo_is_like() -> None:
    mixed = picture(compared(0.9), compared(0.4), FAILED)
    assert (mixed.likeness, mixed.compared_likeness, mixed.same) == (-2.0, 0.4, False)
    assert picture(FAILED).compared_likeness == float("inf")
    assert picture(compared(1.0)).same
    assert picture().likeness == -2


def test_a_summary_adds_up_and_leaves_the_first_out_of_the_times() -> None:
    pictures = [
        picture(compared(1.0, seconds=100.0)),
        picture(compared(0.5, seconds=1.0, only_ours=(0, 1))),
        picture(compared(0.6, seconds=3.0, only_theirs=(0,))),
        picture(FAILED),
        picture(compared(0.1, task="faces")),
    ]
    summary = summarise("ocr", pictures)
    assert (summary.images, summary.compared, summary.failed, summary.same) == (4, 3, 1, 1)
    assert (summary.only_ours, summary.only_theirs, summary.both) == (2, 1, 0)
    assert summary.likeness == pytest.approx(0.7)
    assert (summary.seconds, summary.stock_seconds) == (2.0, 4.0)
    assert summarise("ocr", pictures[:1]).seconds == 100.0, "where there is only one, it counts"


def test_nothing_compared_is_like_nothing() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(
            table([summarise("ocr", [picture(FAILED)]), summarise("faces", [picture(compared(1, task="faces"))])])
        )
    rows = {line.split("│")[1].strip(): line.split("│")[2:4] for line in captured.get().splitlines() if "│" in line}
    assert [cell.strip() for cell in rows["likeness"]] == ["–", "1.000"]
    assert [cell.strip() for cell in rows["failed"]] == ["1", "0"]
