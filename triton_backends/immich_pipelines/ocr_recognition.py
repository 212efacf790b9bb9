"""Text recognition: boxes to batches of line images; `ocr_ctc` makes text of what the network says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_layout import VERTICAL

Array = npt.NDArray[Any]

HEIGHT: Final = 48
"""Height of a line image, fixed by the networks."""

WIDTHS: Final = (*range(64, 512, 32), *range(512, 1024, 64), *range(1024, 2048, 128), *range(2048, 4097, 256))
"""Allowed widths of a line image, 39 in all: close enough that little is computed on padding, few enough that a
runtime that prepares its kernels for every shape is soon done. A longer line is squeezed into the last."""


CUBIC: Final = 3
"""Pixels beyond a box that bicubic interpolation may read."""

LONGEST: Final = 32_000
"""Longest side that is warped, in pixels."""


@dataclass(frozen=True)
class Batch:
    """Lines of one width: their places in the page's list, and float32 [N, 3, 48, width] for the recogniser."""

    lines: Sequence[int]
    images: Array


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


def with_longer(widths: Sequence[int]) -> tuple[int, ...]:
    """Return *widths*, smallest first, and those of `WIDTHS` for a line that is longer than all of them."""
    return (*widths, *(width for width in WIDTHS if not widths or width > widths[-1]))


def batches(lines: Sequence[Array], max_batch: int, widths: Sequence[int] = WIDTHS) -> Iterator[Batch]:
    """Group the RGB *lines* (uint8 [48, width, 3]) into batches of equal width, the widest first.

    A line is padded at its right to the next of *widths*, with 0 after normalisation, as RapidOCR does. RapidOCR pads
    a batch to its widest line, and every line to 320: on a page of short lines half the work.
    """
    groups: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(next(width for width in widths if width >= line.shape[1]), []).append(index)
    for width in sorted(groups, reverse=True):
        members = groups[width]
        for start in range(0, len(members), max_batch):
            chosen = members[start : start + max_batch]
            yield Batch(chosen, _normalised([lines[index] for index in chosen], width))


def _normalised(lines: Sequence[Array], width: int) -> Array:
    images = np.zeros((len(lines), 3, HEIGHT, width), np.float32)
    for image, line in zip(images, lines, strict=True):
        # RGB to BGR, channels first.
        np.divide(line[:, :, ::-1].transpose(2, 0, 1), np.float32(127.5), out=image[:, :, : line.shape[1]])
        image[:, :, : line.shape[1]] -= 1
    return images
