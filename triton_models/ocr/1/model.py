"""The ``ocr`` pipeline in Triton; see ``immich_pipelines.ocr`` for what it does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

from immich_pipelines.decoding.client import DecodingPool
from immich_pipelines.ocr import Knobs, Page, read
from immich_pipelines.ocr_networks import NetworkPair
from immich_pipelines.requests import Request, answer, failure


class TritonPythonModel:
    """One process of the pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Prepare; the networks are looked up at the first request that names them."""
        # Parallelism is that of the processes; threads of OpenCV's own would only push theirs aside.
        cv2.setNumThreads(1)
        self._images = DecodingPool.of(json.loads(args["model_config"]))
        # The version folder lies in the model's, and that in the repository.
        self._networks = NetworkPair(Path(pb_utils.get_model_dir()).parent.parent)

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch; while one waits for a network, the next is decoded."""
        return await asyncio.gather(*(self._answer(Request(request)) for request in requests))

    def finalize(self) -> None:
        """Leave the processes that decode."""
        self._images.close()

    async def _answer(self, request: Request) -> Any:
        try:
            knobs = Knobs(
                detection_min_score=request.number("detection_min_score", Knobs.detection_min_score),
                recognition_min_score=request.number("recognition_min_score", Knobs.recognition_min_score),
                max_resolution=int(request.number("max_resolution", Knobs.max_resolution)),
                recognition=request.flag("recognition", Knobs.recognition),
            )
            networks = self._networks.get(request.text("detector", "ocr_det"), request.text("recognizer", "ocr_rec"))
            image, max_pixels = request.payload("IMAGE"), request.max_pixels()
            page = await read(image, knobs, networks, max_pixels=max_pixels, decode=self._images.decode)
            return answer(_tensors(page))
        except Exception as error:  # noqa: BLE001 - whatever fails becomes the answer of this request alone
            return failure(error)


def _tensors(page: Page) -> dict[str, Any]:
    return {
        "BOXES": page.boxes[np.newaxis],
        "BOX_SCORES": page.box_scores[np.newaxis],
        "TEXTS": np.array([[text.encode() for text in page.texts]], dtype=np.object_),
        "TEXT_SCORES": page.text_scores[np.newaxis],
        "IMAGE_SIZE": np.array([page.size], dtype=np.int32),
    }
