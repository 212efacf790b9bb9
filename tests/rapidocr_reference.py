"""RapidOCR's own classes on the original ONNX files, in this process: what the pipeline is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rapidocr_onnxruntime import RapidOCR
from rapidocr_onnxruntime.ch_ppocr_det import TextDetector
from rapidocr_onnxruntime.ch_ppocr_rec import TextRecognizer

from immich_pipelines.decode import decode_rgb
from immich_pipelines.ocr_batches import WIDTHS
from immich_pipelines.ocr_detection import detection_size
from immich_triton.cli import export_ocr
from immich_triton.export.ocr import sources as ocr_sources


@dataclass(frozen=True)
class Line:
    """A text, its score, and its box: TL TR BR BL in pixels, float32 [4, 2]."""

    text: str
    score: float
    box: npt.NDArray[Any]


class RapidOcrReference:
    """Detector and recogniser of one PP-OCR version."""

    def __init__(self, version: str) -> None:
        chosen = ocr_sources.VERSIONS[version]
        files = ocr_sources.fetch(chosen, export_ocr.CACHE)
        recognizer = chosen.recognizer
        self._detector = TextDetector(
            {
                "model_path": str(files[chosen.detector.detector]),
                # The image comes in its final size: nothing is left to scale.
                "limit_type": "min",
                "limit_side_len": 32,
                "box_thresh": 0.5,
                "unclip_ratio": 1.6,
            }
        )
        self._recognizer = TextRecognizer(
            {
                "model_path": str(files[recognizer.recognizer]),
                "rec_keys_path": str(files[recognizer.dictionary]) if recognizer.dictionary else None,
                "rec_batch_num": 6,
                "rec_img_shape": [3, 48, 320],
            }
        )

    def read(self, image: bytes, *, max_resolution: int = 736, min_score: float = 0.8, own_widths: bool) -> list[Line]:
        """Read *image*; detection gets the pixels that the pipeline's detection gets.

        With *own_widths* RapidOCR pads lines as it likes, to the widest of six and at least to 320; without, each line
        as far as the pipeline does. What is beside a line changes a network's mind about a narrow space or the form of
        a yen sign now and then.
        """
        page = np.ascontiguousarray(decode_rgb(image)[:, :, ::-1])
        height, width = page.shape[:2]
        size = detection_size(height, width, max_resolution)
        if size is None:
            return []
        detector = self._detector
        scaled = detector.get_preprocess(max(size))(cv2.resize(page, size[::-1]))
        assert scaled.shape == (1, 3, *size)
        boxes, _ = detector.postprocess_op(detector.infer(scaled)[0], (height, width))
        boxes = detector.filter_tag_det_res(boxes, (height, width))
        if len(boxes) == 0:
            return []
        # The method uses nothing of its object.
        crops = RapidOCR.get_crop_img_list(None, page, boxes)
        texts = self._recognize(crops, 6, 320) if own_widths else [self._alone(crop) for crop in crops]
        return [Line(text, score, box) for box, (text, score) in zip(boxes, texts, strict=True) if score > min_score]

    def _alone(self, crop: npt.NDArray[Any]) -> tuple[str, float]:
        wanted = math.ceil(48 * crop.shape[1] / crop.shape[0])
        return self._recognize([crop], 1, next(width for width in WIDTHS if width >= wanted))[0]

    def _recognize(self, crops: list[npt.NDArray[Any]], batch: int, width: int) -> list[tuple[str, float]]:
        self._recognizer.rec_batch_num = batch
        self._recognizer.rec_image_shape = [3, 48, width]
        texts: list[tuple[str, float]] = self._recognizer(crops)[0]
        return texts
