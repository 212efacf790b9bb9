"""The ``ocr`` pipeline in Triton; see ``immich_pipelines.ocr`` for what it does."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

from immich_pipelines.decoding.client import DecodingPool
from immich_pipelines.large import ordinary_first
from immich_pipelines.ocr import Knobs, Page, read
from immich_pipelines.ocr_networks import NetworkPair
from immich_pipelines.requests import Reply, Request, accept
from immich_pipelines.trimming import Trimmer


class TritonPythonModel:
    """One process of the pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Prepare; the networks are looked up at the first request that names them."""
        # Parallelism is that of the processes; threads of OpenCV's own would only push theirs aside.
        cv2.setNumThreads(1)
        self._images = DecodingPool.of(json.loads(args["model_config"]))
        # The version folder lies in the model's, and that in the repository.
        self._networks = NetworkPair(Path(pb_utils.get_model_dir()).parent.parent)
        self._trimmer = Trimmer(release=self._images.release)

    async def execute(self, requests: list[Any]) -> None:
        """Answer the requests of one dynamic batch, each as soon as it is read.

        While one waits for a network, the next is cut up. Large images come last, one at a time: the others would
        wait for what they need of this process.
        """
        accepted = accept(requests, _job)
        ordinary, large = ordinary_first(accepted, lambda item: item[1].image)
        await asyncio.gather(*(self._answer(*accepted[index]) for index in ordinary))
        for index in large:
            await self._answer(*accepted[index])
        self._trimmer.worked()

    def finalize(self) -> None:
        """Leave the processes that decode."""
        self._trimmer.close()
        self._images.close()

    async def _answer(self, reply: Reply, job: _Job) -> None:
        try:
            networks = self._networks.get(job.detector, job.recognizer)
            page = await read(job.image, job.knobs, networks, max_pixels=job.max_pixels, decode=self._images.decode)
            outputs = _tensors(page)
            if page.left_out:
                pb_utils.Logger.log_warn(
                    f"ocr: a page of {page.size[1]}x{page.size[0]} pixels has more boxes than are read; the "
                    f"{page.left_out} smallest are left out"
                )
        except BaseException as error:  # noqa: BLE001 - whatever fails becomes the answer of this request alone
            reply.fail(error)
        else:
            reply.answer(outputs)


@dataclass(frozen=True)
class _Job:
    image: bytes
    knobs: Knobs
    detector: str
    recognizer: str
    max_pixels: int


def _job(request: Request) -> _Job:
    return _Job(
        image=request.payload("IMAGE"),
        knobs=Knobs(
            detection_min_score=request.score("detection_min_score", Knobs.detection_min_score),
            recognition_min_score=request.score("recognition_min_score", Knobs.recognition_min_score),
            max_resolution=request.count("max_resolution", Knobs.max_resolution),
            recognition=request.flag("recognition", Knobs.recognition),
        ),
        detector=request.text("detector", "ocr_det"),
        recognizer=request.text("recognizer", "ocr_rec"),
        max_pixels=request.max_pixels(),
    )


def _tensors(page: Page) -> dict[str, Any]:
    return {
        "BOXES": page.boxes[np.newaxis],
        "BOX_SCORES": page.box_scores[np.newaxis],
        "TEXTS": np.array([[text.encode() for text in page.texts]], dtype=np.object_),
        "TEXT_SCORES": page.text_scores[np.newaxis],
        "IMAGE_SIZE": np.array([page.size], dtype=np.int32),
    }
