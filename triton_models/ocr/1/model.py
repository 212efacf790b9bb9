"""The ``ocr`` pipeline in Triton; see ``immich_pipelines.ocr`` for what it does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

from immich_pipelines.ocr import Knobs, Page, read
from immich_pipelines.ocr_networks import NetworkPair
from immich_pipelines.requests import Request, answer, failure


class TritonPythonModel:
    """One process of the pipeline."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Prepare; the networks are looked up at the first request that names them."""
        # Parallelism is that of the processes; threads of OpenCV's own would only push theirs aside.
        cv2.setNumThreads(1)
        # The version folder lies in the model's, and that in the repository.
        self._networks = NetworkPair(Path(pb_utils.get_model_dir()).parent.parent)

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch; while one waits for a network, the next is decoded."""
        return await asyncio.gather(*(self._answer(Request(request)) for request in requests))

    async def _answer(self, request: Request) -> Any:
        try:
            knobs = Knobs(
                detection_min_score=request.score("detection_min_score", Knobs.detection_min_score),
                recognition_min_score=request.score("recognition_min_score", Knobs.recognition_min_score),
                max_resolution=request.count("max_resolution", Knobs.max_resolution),
                recognition=request.flag("recognition", Knobs.recognition),
            )
            networks = self._networks.get(request.text("detector", "ocr_det"), request.text("recognizer", "ocr_rec"))
            return answer(
                _tensors(await read(request.payload("IMAGE"), knobs, networks, max_pixels=request.max_pixels()))
            )
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
