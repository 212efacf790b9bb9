"""Comparing two answers: recorded answers of stock against themselves, and against themselves with known changes."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from places import DATA

from immich_triton.inspect.comparing import NotComparableError, compare, cosine, text_likeness

STOCK = DATA / "stock"
FACES = "facial-recognition"


def stock(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((STOCK / name).read_text())
    return answer


@pytest.fixture
def receipt() -> dict[str, Any]:
    return stock("zh_receipt.jpg.ocr.json")


def faces(*boxes: tuple[float, float, float, float], embedding: str = "[1,0]") -> dict[str, Any]:
    found = [
        {"boundingBox": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)), "embedding": embedding, "score": 0.9}
        for box in boxes
    ]
    return {FACES: found, "imageWidth": 100, "imageHeight": 100}


def test_equal_answers_are_the_same(receipt: dict[str, Any]) -> None:
    comparison = compare("ocr", receipt, copy.deepcopy(receipt))
    assert comparison.same
    assert (comparison.likeness, comparison.overlap) == (1.0, 1.0)
    assert comparison.summary == "ocr 9 of 9/9 lines match, IoU 1.00, text 1.000"


def test_the_order_of_lines_does_not_matter(receipt: dict[str, Any]) -> None:
    other = copy.deepcopy(receipt)
    ocr = other["ocr"]
    ocr["box"] = [value for start in range(64, -1, -8) for value in ocr["box"][start : start + 8]]
    for key in ("text", "textScore", "boxScore"):
        ocr[key].reverse()
    comparison = compare("ocr", receipt, other)
    assert comparison.same
    assert [(pair.ours, pair.theirs) for pair in comparison.pairs] == [(i, 8 - i) for i in range(9)]


def test_a_changed_character_is_found(receipt: dict[str, Any]) -> None:
    other = copy.deepcopy(receipt)
    other["ocr"]["text"][8] = "华东超市购物小栗"
    comparison = compare("ocr", receipt, other)
    assert not comparison.same
    assert comparison.pairs[8].likeness == pytest.approx(7 / 8)
    assert 0.98 < comparison.likeness < 1
    assert "~ 华东超市购物小票\n  华东超市购物小栗" in comparison.details
    # The summary goes into logs: no text of the image.
    assert "华" not in comparison.summary


def test_missing_lines_count_with_their_characters(receipt: dict[str, Any]) -> None:
    other = copy.deepcopy(receipt)
    ocr = other["ocr"]
    gone = ocr["text"].pop()
    del ocr["textScore"][-1], ocr["boxScore"][-1], ocr["box"][-8:]
    comparison = compare("ocr", receipt, other)
    assert (comparison.only_ours, comparison.only_theirs) == ((8,), ())
    total = sum(map(len, receipt["ocr"]["text"]))
    assert comparison.likeness == pytest.approx(2 * (total - len(gone)) / (2 * total - len(gone)))
    assert compare("ocr", other, receipt).only_theirs == (8,)
    assert f"+ {gone}" in comparison.details


def test_a_full_page_is_compared_in_a_moment() -> None:
    def page(shift: float) -> dict[str, Any]:
        lefts = [(shift + column / 4, row / 100) for row in range(100) for column in range(4)]
        boxes = [[x, y, x + 0.2, y + 1e-4, x + 0.2, y + 0.008, x, y + 0.008] for x, y in lefts]
        texts = [f"line {number}" for number in range(400)]
        return {"ocr": {"box": [number for box in boxes for number in box], "text": texts}}

    began = time.thread_time()
    comparison = compare("ocr", page(0), page(0.002))
    # Of processor time; comparing every line with every other in Python took more than a second.
    assert time.thread_time() - began < 0.5
    assert len(comparison.pairs) == 400


def test_nothing_found_by_either_is_the_same() -> None:
    nothing = {"ocr": {"box": [], "boxScore": [], "text": [], "textScore": []}, "imageWidth": 9, "imageHeight": 9}
    assert compare("ocr", nothing, nothing).same
    assert compare(FACES, faces(), faces()).summary == "facial-recognition 0 of 0/0 faces match"


def test_faces_are_matched_by_their_boxes() -> None:
    ours = faces((0, 0, 10, 10), (50, 50, 90, 90))
    theirs = faces((51, 50, 91, 90), (20, 0, 30, 10))
    comparison = compare(FACES, ours, theirs)
    assert [(pair.ours, pair.theirs) for pair in comparison.pairs] == [(1, 0)]
    assert comparison.pairs[0].overlap == pytest.approx(39 / 41)
    assert (comparison.only_ours, comparison.only_theirs) == ((0,), (1,))
    assert not comparison.same


def test_the_best_overlap_wins() -> None:
    ours = faces((0, 0, 10, 10), (2, 0, 12, 10))
    theirs = faces((2, 0, 12, 10))
    (pair,) = compare(FACES, ours, theirs).pairs
    assert (pair.ours, pair.theirs) == (1, 0)
    assert pair.overlap == pytest.approx(1.0)


def test_another_face_in_the_same_place_is_not_the_same() -> None:
    comparison = compare(FACES, faces((0, 0, 9, 9)), faces((0, 0, 9, 9), embedding="[0.6,0.8]"))
    assert comparison.pairs[0].likeness == pytest.approx(0.6)
    assert not comparison.same


def test_recorded_faces_equal_themselves_up_to_length() -> None:
    astronaut = stock("astronaut.jpg.faces.json")
    longer = copy.deepcopy(astronaut)
    (face,) = longer[FACES]
    face["embedding"] = json.dumps([3 * value for value in json.loads(face["embedding"])])
    assert compare(FACES, astronaut, longer).same  # Immich compares faces by cosine


def test_embeddings() -> None:
    assert compare("clip", {"clip": "[1,0]"}, {"clip": "[0,2]"}).likeness == pytest.approx(0)
    assert compare("clip", {"clip": "[1,2,3]"}, {"clip": "[1,2,3]"}).same
    assert cosine("[0,0]", "[1,1]") == 0.0


@pytest.mark.parametrize(
    ("task", "theirs"),
    [
        ("clip", {"clip": "[1,2]"}),
        ("clip", {"clip": [1, 2, 3]}),
        ("clip", {"detail": "no"}),
        ("ocr", {"ocr": {"boxes": [], "scores": []}}),
        ("ocr", {"ocr": None}),
        (FACES, {FACES: [{"score": 1}]}),
        ("pet-detection", {"pet-detection": []}),
    ],
)
def test_what_is_no_answer_cannot_be_compared(task: str, theirs: dict[str, Any]) -> None:
    with pytest.raises(NotComparableError):
        compare(task, {"clip": "[1,2,3]", "pet-detection": []}, theirs)


def test_text_likeness() -> None:
    assert text_likeness("", "") == 1.0
    assert text_likeness("合计", "合汁") == 0.5
    assert text_likeness("abc", "xyz") == 0.0
