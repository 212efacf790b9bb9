"""Text detection: a page to the input of a DBNet, and its probability map to boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from rapidocr_onnxruntime.ch_ppocr_det import TextDetector

from immich_pipelines.parts import part

DBPostProcess = part("rapidocr_onnxruntime.ch_ppocr_det.utils").DBPostProcess

Array = npt.NDArray[Any]

MIN_SIDE: Final = 32
"""Images with a shorter side hold no readable text; stock answers them with nothing too."""

MAX_DETECTION_PIXELS: Final = 8_000_000
"""Bound on what the detector gets to see: 11 times the usual 992x736. Only panoramas beyond 14:1 are scaled down
further than stock would; a file of 100,000x1,000 pixels, which the decoder allows, would otherwise take 7 GB."""


@dataclass(frozen=True)
class Boxes:
    """Text boxes of one page: ``points`` float32 [N, 4, 2] in pixels (TL, TR, BR, BL), ``scores`` float32 [N]."""

    points: Array
    scores: Array

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
    ratio = min(1.0, max_resolution / min(height, width))
    ratio = min(ratio, math.sqrt(MAX_DETECTION_PIXELS / (height * width)))
    return max(32, round(int(height * ratio) / 32) * 32), max(32, round(int(width * ratio) / 32) * 32)


def detector_input(page: Array, size: tuple[int, int]) -> Array:
    """Return float32 [1, 3, H, W], BGR, -1..1, of the RGB *page* (uint8 [height, width, 3]) scaled to *size*.

    What RapidOCR's ``DetPreProcess`` computes, in a tenth of its time: that one goes through float64.
    """
    height, width = size
    scaled = cv2.resize(page, (width, height), interpolation=cv2.INTER_LINEAR)
    blob: Array = cv2.dnn.blobFromImage(scaled, 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True)
    return blob


class _Clipper(TextDetector):  # type: ignore[misc] # no types are published
    """RapidOCR's order of corners and clipping, without the session that its constructor opens from a file."""

    def __init__(self) -> None:
        # Deliberately not super().__init__().
        pass


_CLIPPER: Final = _Clipper()


def find_boxes(probabilities: Array, page_size: tuple[int, int], min_score: float) -> Boxes:
    """Return the text boxes in *probabilities* (float32 [1, 1, H, W]), in pixels of the page [height, width].

    RapidOCR's DB post-processing with stock's constants; boxes scored under *min_score* are left out. Every score
    stays with its own box. The order is that of the contours.
    """
    postprocess = DBPostProcess(
        thresh=0.3, box_thresh=min_score, max_candidates=1000, unclip_ratio=1.6, use_dilation=True, score_mode="fast"
    )
    found, scores = postprocess(probabilities, page_size)
    points, kept = [], []
    # RapidOCR's own filter drops boxes and forgets their scores, which shifts all later ones.
    for box, score in zip(found, scores, strict=True):
        corners = _CLIPPER.clip_det_res(_CLIPPER.order_points_clockwise(box), *page_size)
        if int(np.linalg.norm(corners[0] - corners[1])) > 3 and int(np.linalg.norm(corners[0] - corners[3])) > 3:
            points.append(corners)
            kept.append(score)
    if not points:
        return Boxes.none()
    return Boxes(np.asarray(points, np.float32), np.asarray(kept, np.float32))
