"""The corners of boxes: TL TR BR BL of the text, however it leans, and what is done on pages of very many boxes."""

from __future__ import annotations

import asyncio
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_pipelines import ocr_detection
from immich_pipelines.ocr import Knobs, Networks, read
from immich_pipelines.ocr_corners import clipped, in_order, turned
from immich_pipelines.ocr_ctc import Decoder
from immich_pipelines.ocr_detection import find_boxes
from immich_pipelines.ocr_recognition import cut_line

Array = npt.NDArray[Any]


def leaning(width: float, height: float, degrees: float, centre: tuple[float, float] = (640, 640)) -> Array:
    """Give TL TR BR BL, float64 [4, 2], of a box that leans clockwise by *degrees*."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * [width / 2, height / 2]
    return np.asarray(corners @ turn + centre)


def found(*boxes: Array, side: int = 1280) -> ocr_detection.Boxes:
    """Give what is found in a probability map of these boxes."""
    probabilities = np.zeros((1, 1, side, side), np.float32)
    for box in boxes:
        cv2.fillConvexPoly(probabilities[0, 0], box.round().astype(np.int32), [0.9])
    return find_boxes(probabilities, (side, side), 0.5)


@pytest.mark.parametrize("characters", range(4, 31))
@pytest.mark.parametrize("upright", [True, False], ids=["a column or a sideways line", "a line"])
def test_every_length_and_lean_begins_where_its_text_begins(characters: int, upright: bool) -> None:
    thick, long = 12, 24 * characters
    for degrees in range(-12, 13, 2):
        drawn = leaning(*((thick, long) if upright else (long, thick)), degrees, (400, 400))
        (corners,) = found(drawn, side=800).points
        # The box is wider than what was drawn, by as much on each side.
        assert np.linalg.norm(corners - drawn, axis=1).max() < 20, degrees
        across, down = corners[1] - corners[0], corners[3] - corners[0]
        assert (np.linalg.norm(down) > np.linalg.norm(across)) == upright, degrees


@pytest.mark.parametrize("degrees", [-12, -5, 5, 12])
def test_a_leaning_column_is_cut_out_from_its_top(degrees: float) -> None:
    page = np.zeros((1280, 1280, 3), np.uint8)
    column = leaning(40, 900, degrees)
    top = np.array([column[0], column[1], column[[1, 2]].mean(axis=0), column[[0, 3]].mean(axis=0)])
    cv2.fillConvexPoly(page, top.round().astype(np.int32), (255, 0, 0))
    line = cut_line(page, in_order(column[[2, 0, 3, 1]]))
    assert line.shape[1] > 10 * line.shape[0]
    assert line[24, 40, 0] > 250
    assert line[24, -40, 0] < 5


@given(st.floats(1, 900), st.floats(1, 900), st.floats(-44, 44), st.permutations(range(4)))
def test_corners_come_in_order_whatever_their_order_was(
    width: float, height: float, degrees: float, order: list[int]
) -> None:
    corners = leaning(width, height, degrees)
    np.testing.assert_allclose(in_order(corners[order]), corners, atol=1e-3)


def test_the_boxes_of_a_page_are_put_in_order_each_on_its_own_account() -> None:
    boxes = np.array([leaning(90, 20, degrees)[order] for degrees, order in ((-30, [2, 0, 3, 1]), (8, [1, 3, 2, 0]))])
    assert np.array_equal(in_order(boxes), [in_order(box) for box in boxes])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=4))
def test_corners_that_coincide_are_no_error(corners: list[tuple[int, int]]) -> None:
    given_corners = np.array(corners)
    ordered = in_order(given_corners)
    assert sorted(map(tuple, ordered.tolist())) == sorted((float(x), float(y)) for x, y in corners)


def test_corners_end_inside_the_page() -> None:
    assert clipped(np.array([(-3, 5.7), (20, -1), (12, 99), (4, 4)]), 50, 10).tolist() == [
        [0, 5],
        [9, 0],
        [9, 49],
        [4, 4],
    ]


def test_text_on_its_head_begins_at_the_bottom_right() -> None:
    corners = np.array([(0, 0), (9, 0), (9, 3), (0, 3)])
    assert turned(corners, 2).tolist() == [[9, 3], [0, 3], [0, 0], [9, 0]]
    # On a page turned clockwise by a quarter, what is at the top right is where a line begins.
    assert turned(corners, 1)[0].tolist() == [9, 0]
    assert turned(corners[np.newaxis], 3)[0, 0].tolist() == [0, 3]


# Pages of very many boxes


def rows_of(count: int, side: int = 1280) -> list[Array]:
    """Give *count* boxes of 24x6 pixels in rows from top to bottom."""
    in_a_row = side // 32
    return [leaning(24, 6, 0, (32 * (index % in_a_row) + 16, 14 * (index // in_a_row) + 10)) for index in range(count)]


def test_a_table_of_more_than_a_thousand_cells_is_found_whole() -> None:
    boxes = found(*rows_of(2000))
    assert len(boxes.points) == 2000
    assert boxes.left_out == 0
    assert boxes.points[:, :, 1].min() < 14


def test_beyond_the_bound_the_largest_remain_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr_detection, "MAX_BOXES", 50)
    large = leaning(400, 30, 0, (640, 20))
    boxes = found(large, *(box + np.array([0, 60]) for box in rows_of(99)))
    assert len(boxes.points) == 50
    assert boxes.left_out == 50
    assert boxes.points[:, :, 1].min() < 20


def test_a_page_says_how_many_of_its_boxes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr_detection, "MAX_BOXES", 50)
    probabilities = np.zeros((1, 1, 640, 640), np.float32)
    for box in rows_of(70, 640):
        cv2.fillConvexPoly(probabilities[0, 0], box.round().astype(np.int32), [0.9])

    async def detect(_: Array) -> Array:
        return probabilities

    async def recognize(images: Array) -> tuple[Array, Array]:
        return np.ones((len(images), 1), np.int32), np.ones((len(images), 1), np.float32)

    image = cv2.imencode(".png", np.zeros((640, 640, 3), np.uint8))[1].tobytes()
    for knobs in (Knobs(), Knobs(recognition=False)):
        page = asyncio.run(read(image, knobs, Networks(detect, recognize, Decoder("a"))))
        assert (len(page.boxes), page.left_out) == (50, 20)
