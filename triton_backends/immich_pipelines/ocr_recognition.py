"""Text recognition: boxes to images of lines, which `ocr_batches` puts together and `ocr_ctc` makes text of."""

from __future__ import annotations

import math
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_batches import HEIGHT, WIDTHS
from immich_pipelines.ocr_layout import VERTICAL

Array = npt.NDArray[Any]

CUBIC: Final = 3
"""Pixels beyond a box that bicubic interpolation may read."""

LONGEST: Final = 32_000
"""Longest side that is warped, in pixels."""


def cut_line(page: Array, box: Array) -> Array:
    """Return the pixels in *box* (float32 [4, 2]: TL, TR, BR, BL), straightened, as uint8 [48, width, 3].

    As RapidOCR and stock: a perspective crop in the box's own size; one at least 1.5 times as tall as wide is vertical
    writing and is turned 90 degrees counter-clockwise; then scaled to the height of 48.
    """
    page, box = _region(page, box.astype(np.float32))
    width = max(1, int(max(np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[2] - box[3]))))
    height = max(1, int(max(np.linalg.norm(box[0] - box[3]), np.linalg.norm(box[1] - box[2]))))
    line = _upright(page, box, width, height)
    if line is None:
        line = _straightened(page, box, width, height)
    if height >= VERTICAL * width:
        line, width, height = np.rot90(line), height, width
    scaled: Array = cv2.resize(line, (min(math.ceil(HEIGHT * width / height), WIDTHS[-1]), HEIGHT))
    return scaled


def _upright(page: Array, box: Array, width: int, height: int) -> Array | None:
    """Return the pixels in a *box* that needs no straightening, as most on a screenshot; None when it does.

    The same bytes as `_straightened` gives, which takes a millisecond for a line: every pixel moves by whole numbers.
    """
    left, top = map(int, box[0])
    right, bottom = left + width, top + height
    if not np.array_equal(box, [[left, top], [right, top], [right, bottom], [left, bottom]]):
        return None
    if min(left, top) < 0 or right > page.shape[1] or bottom > page.shape[0]:
        return None
    return page[top:bottom, left:right]


def _straightened(page: Array, box: Array, width: int, height: int) -> Array:
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(box, corners)
    return cv2.warpPerspective(page, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _region(page: Array, box: Array) -> tuple[Array, Array]:
    """Return the part of *page* around *box*, and the box in it.

    OpenCV warps nothing with a side of 32,767 pixels or more, as a long screenshot has; a line that is itself as long
    is scaled down first.
    """
    left, top = np.maximum(np.floor(box.min(axis=0)).astype(int) - CUBIC, 0)
    right, bottom = np.ceil(box.max(axis=0)).astype(int) + CUBIC + 1
    part: Array = page[top:bottom, left:right]
    inside: Array = box - np.array([left, top], np.float32)
    factor = LONGEST / max(part.shape[:2])
    if factor < 1:
        part = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        inside = inside * np.float32(factor)
    return part, inside
