"""Text detection: a page to the input of a DBNet, and its probability map to boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_corners import clipped, in_order
from immich_pipelines.parts import part
from immich_pipelines.shapes import Fit, Size, fit

_DBPostProcess: Any = part("rapidocr_onnxruntime.ch_ppocr_det.utils").DBPostProcess

Array = npt.NDArray[Any]

LIKELY: Final = 0.3
"""From this probability on a pixel is text, as for RapidOCR and stock."""

MIN_SIDE: Final = 32
"""Images with a shorter side hold no readable text; stock answers them with nothing too."""

MAX_DETECTION_PIXELS: Final = 8_000_000
"""Bound on what the detector gets to see: 11 times the usual 992x736. Only panoramas beyond 14:1 are scaled down
further than stock would; a file of 100,000x1,000 pixels, which the decoder allows, would otherwise take 7 GB."""

SAMPLED: Final = 8
"""The colour of a page is that of every so many pixels, each way."""

MAX_BOXES: Final = 3000
"""Bound on the contours that are looked at, the largest ones. Stock takes 1,000, those that lie lowest."""


@dataclass(frozen=True)
class Boxes:
    """Text boxes of one page: ``points`` float32 [N, 4, 2] in pixels (TL, TR, BR, BL), ``scores`` float32 [N].

    ``left_out``: how many more there may be, on a page of more than `MAX_BOXES`.
    """

    points: Array
    scores: Array
    left_out: int = 0

    @staticmethod
    def none() -> Boxes:
        """Return no boxes at all."""
        return Boxes(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))


def detection_size(height: int, width: int, max_resolution: int) -> tuple[int, int] | None:
    """Return height and width for the detector, or None when the page is too small to hold text.

    As stock: the shorter side is at most *max_resolution*, nothing is enlarged, both are multiples of 32.
    """
    if min(height, width) < MIN_SIDE:
        return None
    height, width = _scaled(height, width, max_resolution)
    return max(32, round(height / 32) * 32), max(32, round(width / 32) * 32)


def _scaled(height: int, width: int, max_resolution: int) -> Size:
    ratio = min(1.0, max_resolution / min(height, width))
    ratio = min(ratio, math.sqrt(MAX_DETECTION_PIXELS / (height * width)))
    return int(height * ratio), int(width * ratio)


def placement(height: int, width: int, max_resolution: int, canvases: Sequence[Size]) -> Fit | None:
    """Return how a page goes to the detector: on one of *canvases* where it fits one, else in its `detection_size`.

    It has that size too where it leaves a part of its canvas empty: as on a CPU, so that boxes are the same. None when
    the page is too small to hold text.
    """
    size = detection_size(height, width, max_resolution)
    if size is None:
        return None
    scaled_height, scaled_width = _scaled(height, width, max_resolution)
    place = fit(max(1, scaled_height), max(1, scaled_width), canvases) or Fit(size, size)
    if place.padded and size[0] <= place.canvas[0] and size[1] <= place.canvas[1]:
        return Fit(place.canvas, size)
    return place


def on_canvas(page: Array, place: Fit) -> Array:
    """Return uint8 [1, H, W, 3], the RGB *page* (uint8 [height, width, 3]) scaled and put where *place* says.

    The rest has the page's own colour, its median: beside a medium grey the detector cut columns of Chinese in pieces
    that it left whole without (scripts/lab/eval_ocr.py --networks --aspect 1.2).
    """
    height, width = place.page
    scaled: Array = cv2.resize(page, (width, height), interpolation=cv2.INTER_LINEAR)
    if not place.padded:
        return scaled[np.newaxis]
    canvas = np.empty((1, *place.canvas, 3), np.uint8)
    canvas[:] = np.rint(np.median(scaled[::SAMPLED, ::SAMPLED], axis=(0, 1)))
    canvas[0, :height, :width] = scaled
    return canvas


def as_floats(pixels: Array) -> Array:
    """Return float32 [1, 3, H, W], BGR, -1..1, of *pixels* (uint8 [1, H, W, 3], RGB).

    For a detector on a GPU, and those of earlier exports. What RapidOCR's ``DetPreProcess`` computes, in a tenth of its
    time: that one goes through float64.
    """
    blob: Array = cv2.dnn.blobFromImage(pixels[0], 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True)
    return blob


class _Contours(_DBPostProcess):  # type: ignore[misc] # no types are published
    """RapidOCR's DB post-processing with stock's constants, but for what it does on a page of very many contours.

    RapidOCR's own takes the first thousand that OpenCV finds, which are those at the bottom of the page.
    """

    def __init__(self, min_score: float) -> None:
        super().__init__(thresh=LIKELY, box_thresh=min_score, unclip_ratio=1.6, use_dilation=True, score_mode="fast")
        self.left_out = 0

    def boxes_from_bitmap(
        self, pred: Array, bitmap: Array, dest_width: int, dest_height: int
    ) -> tuple[list[Array], list[float]]:
        """Return the corners of each box, [4, 2] in pixels of the page, and its score."""
        size, page = np.array(bitmap.shape[::-1], np.float32), np.array([dest_width, dest_height], np.float32)
        boxes, scores = [], []
        for contour in self._largest(bitmap):
            shrunk, side = self.get_mini_boxes(contour)
            if side < self.min_size or (score := self.box_score_fast(pred, shrunk)) < self.box_thresh:
                continue
            box, side = self.get_mini_boxes(self.unclip(shrunk))
            if side >= self.min_size + 2:
                boxes.append(np.clip(np.round(box / size * page), 0, page))
                scores.append(score)
        return boxes, scores

    def _largest(self, bitmap: Array) -> Sequence[Array]:
        contours, _ = cv2.findContours(bitmap * np.uint8(255), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        if len(contours) <= MAX_BOXES:
            return contours
        sizes = np.array([cv2.boundingRect(contour)[2:] for contour in contours])
        order = np.argsort(-sizes.prod(axis=1), kind="stable")
        # A speck is no box, whether it is looked at or not.
        self.left_out = int((sizes[order[MAX_BOXES:]].min(axis=1) > self.min_size).sum())
        return [contours[index] for index in sorted(order[:MAX_BOXES])]


def find_boxes(probabilities: Array, page_size: tuple[int, int], min_score: float) -> Boxes:
    """Return the text boxes in *probabilities* (float32 [1, 1, H, W]), in pixels of the page [height, width].

    RapidOCR's DB post-processing with stock's constants, but for the bound; boxes scored under *min_score* are left
    out. Every score stays with its own box. The order is that of the contours.
    """
    postprocess = _Contours(min_score)
    found, scores = postprocess(probabilities, page_size)
    if not found:
        return Boxes.none()
    corners = clipped(in_order(np.array(found)), *page_size)
    # RapidOCR's own filter drops boxes and forgets their scores, which shifts all later ones.
    sides = np.linalg.norm(corners[:, [1, 3]] - corners[:, :1], axis=-1)
    kept = (sides.astype(int) > 3).all(axis=1)
    return Boxes(corners[kept], np.array(scores, np.float32)[kept], postprocess.left_out)
