"""The comparison as one HTML file; what a person gets from the command: test_compare.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from places import DATA

from immich_triton.immich.ml_client import Answer
from immich_triton.inspect.comparing import compare
from immich_triton.inspect.comparison_report import marked, render
from immich_triton.inspect.comparisons import KEYS, Album, Outcome, Picture, summarise

FACES = json.loads((DATA / "stock/astronaut.jpg.faces.json").read_text())
OCR = json.loads((DATA / "stock/zh_receipt.jpg.ocr.json").read_text())


def outcome_of(task: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Outcome:
    return Outcome(task, Answer(200, ours, 0.01), Answer(200, theirs, 0.02), compare(KEYS[task], ours, theirs))


def report(*outcomes: Outcome, name: str = "photo.jpg") -> str:
    album = Album()
    album.add(Picture(Path(name), b"a picture", outcomes))
    return render(album, [summarise(outcome.task, album.pictures) for outcome in outcomes], "a heading")


def section(html: str) -> str:
    return html.partition("<section")[2]


def test_marks() -> None:
    assert marked("a<b", "a&b") == ("a<mark>&lt;</mark>b", "a<mark>&amp;</mark>b")
    assert marked("same", "same") == ("same", "same")
    assert marked("", "new") == ("", "<mark>new</mark>")


def test_equal_lines_stand_side_by_side_unmarked() -> None:
    html = report(outcome_of("ocr", OCR, OCR))
    assert "class=same>" in section(html)
    assert "<mark>" not in section(html)
    assert section(html).count("<td class=ours>") == section(html).count("<td class=theirs>") == 9
    assert section(html).count("<polygon") == 18
    assert "ocr 10 and 20 ms" in html


def test_faces_of_one_side_alone_are_marked() -> None:
    nobody = {**FACES, "facial-recognition": []}
    for ours, theirs, side in ((FACES, nobody, "ours"), (nobody, FACES, "theirs")):
        html = section(report(outcome_of("faces", ours, theirs)))
        assert "class=different>" in html
        assert html.count("<mark>score ") == len(FACES["facial-recognition"])
        assert f'<polygon class="{side}"' in html


def test_boxes_lie_upon_the_picture_whatever_its_size() -> None:
    html = section(report(outcome_of("faces", FACES, FACES)))
    (face, *_) = FACES["facial-recognition"]
    left, top = face["boundingBox"]["x1"] / FACES["imageWidth"], face["boundingBox"]["y1"] / FACES["imageHeight"]
    assert f'points="{left:.5f},{top:.5f} ' in html
    no_size = {"facial-recognition": FACES["facial-recognition"]}
    assert "<polygon" not in report(outcome_of("faces", no_size, no_size))


def test_nothing_found_by_either_is_said() -> None:
    nobody = {**FACES, "facial-recognition": []}
    assert "<h3>faces: nothing found by either</h3>" in report(outcome_of("faces", nobody, nobody))


@pytest.mark.parametrize("text", ["<script>", "a & b"])
def test_what_comes_from_outside_is_no_markup(text: str) -> None:
    html = report(Outcome("ocr", None, None, error=text), name=f"{text}.jpg")
    assert html.count(text) == 0
    assert "<p class=error>" in html


def test_the_least_alike_come_first_and_failures_before_all() -> None:
    album = Album()
    nobody = {**FACES, "facial-recognition": []}
    for name, outcome in (
        ("same", outcome_of("faces", FACES, FACES)),
        ("different", outcome_of("faces", FACES, nobody)),
        ("failed", Outcome("faces", None, None, error="it did not answer")),
    ):
        album.add(Picture(Path(name), b"", (outcome,)))
    html = render(album, [], "")
    places = [html.index(f"<h2>{name}<") for name in ("failed", "different", "same")]
    assert places == sorted(places)
    assert "<img" not in html
