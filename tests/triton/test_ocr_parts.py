"""The parts of the ``ocr`` pipeline that need no network: sizes, boxes, batches, decoding."""

from __future__ import annotations

import asyncio
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidocr_onnxruntime.ch_ppocr_det.utils import DBPostProcess, DetPreProcess

from immich_pipelines.errors import BadInput
from immich_pipelines.ocr import Knobs, detect
from immich_pipelines.ocr_batches import WIDTHS, Limits, batches
from immich_pipelines.ocr_ctc import Decoder
from immich_pipelines.ocr_detection import MAX_DETECTION_PIXELS, as_floats, detection_size, find_boxes, on_canvas
from immich_pipelines.ocr_recognition import cut_line
from immich_pipelines.shapes import Fit

Array = npt.NDArray[Any]
noise = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("page", "max_resolution", "expected"),
    [
        ((1440, 1920), 736, (736, 992)),  # the shorter side; 981 is rounded
        ((1440, 1080), 736, (992, 736)),
        ((300, 451), 736, (288, 448)),  # never up
        ((1440, 1920), 5000, (1440, 1920)),
        ((33, 40), 736, (32, 32)),
        ((1440, 1920), 1, (32, 32)),
        ((31, 2000), 736, None),
    ],
)
def test_detection_sizes(page: tuple[int, int], max_resolution: int, expected: tuple[int, int] | None) -> None:
    assert detection_size(*page, max_resolution) == expected


@given(st.integers(32, 100_000), st.integers(32, 100_000), st.integers(1, 10_000))
def test_detection_size_is_bounded(height: int, width: int, max_resolution: int) -> None:
    size = detection_size(height, width, max_resolution)
    assert size is not None
    assert all(side >= 32 and side % 32 == 0 for side in size)
    assert size[0] * size[1] <= MAX_DETECTION_PIXELS * 1.3 or min(size) == 32


def test_detector_input_is_rapidocrs() -> None:
    page = noise.integers(0, 256, (96, 128, 3), np.uint8)
    expected = DetPreProcess(32, "min")(np.ascontiguousarray(page[:, :, ::-1]))
    pixels = on_canvas(page, Fit((96, 128), (96, 128)))
    assert pixels.dtype == np.uint8
    assert np.abs(as_floats(pixels) - expected).max() < 1e-6


def text_map(*boxes: tuple[int, int, int, int], value: float = 0.9) -> Array:
    """Give a probability map of 320x320 with boxes left, top, right, bottom."""
    probabilities = np.zeros((1, 1, 320, 320), np.float32)
    for left, top, right, bottom in boxes:
        probabilities[0, 0, top:bottom, left:right] = value
    return probabilities


def test_every_box_keeps_its_own_score() -> None:
    probabilities = text_map((20, 20, 300, 50)) + text_map((20, 200, 300, 230), value=0.6)
    # On a page a fifth the size this speck is too small for text: found, then dropped together with its score.
    probabilities += text_map((100, 120, 107, 127), value=0.75)
    raw, scores = DBPostProcess(box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)(probabilities, (60, 60))
    assert len(raw) == len(scores) == 3
    assert scores[1] == pytest.approx(0.75, abs=0.2)
    boxes = find_boxes(probabilities, (60, 60), 0.5)
    by_height = dict(zip(boxes.points[:, 0, 1] < 30, boxes.scores.tolist(), strict=True))
    assert by_height[True] == pytest.approx(0.9, abs=0.05)
    assert by_height[False] == pytest.approx(0.6, abs=0.05)
    assert len(boxes.scores) == 2


def test_boxes_under_the_minimum_score_are_left_out() -> None:
    probabilities = text_map((20, 20, 300, 50), value=0.6)
    assert len(find_boxes(probabilities, (320, 320), 0.5).points) == 1
    assert find_boxes(probabilities, (320, 320), 0.7).points.shape == (0, 4, 2)


@given(st.integers(0, 2**32 - 1))
def test_any_probability_map_gives_boxes_inside_the_page(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = cv2.blur(random.random((64, 96), np.float32), (5, 3))[np.newaxis, np.newaxis] * 1.2
    boxes = find_boxes(probabilities, (640, 960), 0.1)
    assert len(boxes.points) == len(boxes.scores)
    assert ((boxes.points >= 0) & (boxes.points <= (960, 640))).all()


def box(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Give TL TR BR BL of a box at x, y."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def test_vertical_writing_is_turned_counter_clockwise() -> None:
    page = np.zeros((400, 100, 3), np.uint8)
    page[:100, :, 0] = 255  # red at the top of the column
    line = cut_line(page, np.array(box(0, 0, 99, 399), np.float32))
    assert line.shape[0] == 48
    assert line.shape[1] > 48
    # Turned counter-clockwise, the top comes to lie on the left.
    assert line[:, : line.shape[1] // 6, 0].min() > 200
    assert line[:, line.shape[1] // 2 :, 0].max() < 50


def test_batches_have_one_width_each_and_hold_every_line_once() -> None:
    widths = [1, 64, 65, 300, 301, 5, 4096, 70]
    lines = [np.full((48, width, 3), 255, np.uint8) for width in widths]
    made = list(batches(lines, Limits(2)))
    assert sorted(index for batch in made for index in batch.lines) == list(range(len(lines)))
    for batch in made:
        assert len(batch.lines) <= 2
        assert batch.images.shape[3] in WIDTHS
        for index, image in zip(batch.lines, batch.images, strict=True):
            assert (image[:, :, : widths[index]] == 1).all()
            assert (image[:, :, widths[index] :] == 0).all()


@pytest.mark.parametrize(
    ("limits", "width", "sizes"),
    [
        (Limits(), 320, [4, 2, 1]),
        (Limits(), 384, [2, 2, 2, 1]),
        (Limits(), 640, [2, 2, 2, 1]),
        (Limits(), 768, [1] * 7),
        (Limits(columns=0), 2560, [4, 3]),
        (Limits(lines=1), 64, [1] * 7),
    ],
)
def test_a_batch_has_as_many_lines_as_are_computed_at_once(limits: Limits, width: int, sizes: list[int]) -> None:
    lines = [np.zeros((48, width, 3), np.uint8)] * 7
    assert [len(batch.lines) for batch in batches(lines, limits)] == sizes


def test_the_batch_with_the_most_work_comes_first_and_is_made_ready_when_it_is_due() -> None:
    lines = [np.zeros((48, width, 3), np.uint8) for width in (640, 320, 320, 320, 64)]
    ready = batches(lines, Limits())
    assert [next(ready).lines, next(ready).lines] == [[0], [1, 2]]
    lines[3][:] = 255
    third = next(ready)
    assert (third.lines, third.images.min()) == ([3], 1), "not before the one before it was taken"


def test_lines_go_to_the_network_as_bgr() -> None:
    line = np.zeros((48, 64, 3), np.uint8)
    line[:, :, 0] = 255  # red
    (batch,) = batches([line], Limits(1))
    assert batch.images[0, :, 0, 0].tolist() == [-1, -1, 1]


def test_pixels_are_scaled_as_rapidocr_scales_them_of_a_turned_line_too() -> None:
    line = noise.integers(0, 256, (48, 100, 3), np.uint8)
    for image in (line, line[::-1, ::-1]):
        (batch,) = batches([image], Limits(1))
        expected = (image[:, :, ::-1].transpose(2, 0, 1) / np.float32(255) - 0.5) / 0.5
        assert np.abs(batch.images[0, :, :, :100] - expected).max() < 1e-6


def test_a_line_longer_than_any_width_is_squeezed() -> None:
    page = np.zeros((20, 4000, 3), np.uint8)
    assert cut_line(page, np.array(box(0, 0, 3999, 10), np.float32)).shape == (48, WIDTHS[-1], 3)


def test_ctc_decoding() -> None:
    decode = Decoder("a\nb")
    indices = np.array([[0, 1, 1, 0, 1, 2, 3, 0], [0] * 8])
    scores = np.array([[0.9, 0.8, 0.1, 0.9, 0.6, 1.0, 0.4, 0.9], [0.9] * 8], np.float32)
    line, empty = decode(indices, scores)
    assert line.words == "aab "
    assert line.score == pytest.approx((0.8 + 0.6 + 1.0 + 0.4) / 4)
    assert (empty.words, empty.score) == ("", 0.0)


def test_control_characters_never_reach_the_text() -> None:
    decode = Decoder("a\n\x00\n\x1b\n\u0085\n\ud800\nb")
    indices = np.array([[1, 2, 3, 4, 5, 6]])
    assert decode(indices, np.ones((1, 6), np.float32))[0][0] == "ab"


@pytest.mark.parametrize("resolution", [0, -736])
def test_a_resolution_that_no_page_has_is_a_bad_request(resolution: int) -> None:
    with pytest.raises(BadInput, match="max_resolution"):
        Knobs(max_resolution=resolution)


def test_a_tiny_page_never_reaches_the_network() -> None:
    async def network(_: Array) -> Array:
        raise AssertionError

    boxes = asyncio.run(detect(np.zeros((16, 500, 3), np.uint8), Knobs(), network))
    assert len(boxes.points) == 0
