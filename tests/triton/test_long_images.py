"""Images with a side beyond OpenCV's 32,767 pixels, such as long screenshots: read like any other, no server fault."""

from __future__ import annotations

import numpy as np
import pytest

from immich_pipelines import faces_recognition
from immich_pipelines.ocr_recognition import cut_line

LONG = 33_000
NOISE = np.random.default_rng(0).integers(0, 256, (80, 400, 3), np.uint8)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def test_a_line_is_cut_out_of_a_long_page_as_out_of_a_short_one() -> None:
    short, long = np.zeros((200, 600, 3), np.uint8), np.zeros((LONG, 600, 3), np.uint8)
    short[60:140, 100:500] = NOISE
    long[-140:-60, 100:500] = NOISE
    here, there = box(110, 70, 490, 130), box(110, LONG - 130, 490, LONG - 70)
    assert np.array_equal(cut_line(short, here), cut_line(long, there))
    tilted = np.array([[0, -6], [0, 6], [0, 6], [0, -6]], np.float32)
    difference = cut_line(short, here + tilted).astype(int) - cut_line(long, there + tilted)
    assert np.abs(difference).max() <= 1  # coordinates of five digits have fewer behind the point


@pytest.mark.parametrize("vertical", [False, True])
def test_a_line_as_long_as_a_long_page(vertical: bool) -> None:
    page = np.full((60, LONG, 3), 255, np.uint8)
    corners = box(0, 5, LONG - 1, 55)
    if vertical:
        page, corners = np.ascontiguousarray(page.transpose(1, 0, 2)), box(5, 0, 55, LONG - 1)
    assert cut_line(page, corners).shape == (48, 4096, 3)


def test_a_face_is_cut_out_of_a_long_image_as_out_of_a_short_one() -> None:
    landmarks = np.array([[180, 30], [220, 32], [200, 45], [185, 60], [216, 61]], np.float32)
    long = np.zeros((LONG, 400, 3), np.uint8)
    long[-80:] = NOISE
    below = landmarks + np.array([0, LONG - 80], np.float32)
    short = np.concatenate([np.zeros((1000, 400, 3), np.uint8), NOISE])
    cropped = faces_recognition.align(short, landmarks + np.array([0, 1000], np.float32))
    assert cropped is not None
    difference = cropped.astype(int) - faces_recognition.align(long, below.astype(np.float32))
    # OpenCV counts in 1/32 pixels, and noise may change by 255 from one pixel to the next.
    assert np.abs(difference).max() <= 255 / 32
