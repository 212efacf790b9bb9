"""Triton's entry to the ``clip_image`` pipeline; see ``config.pbtxt`` beside this folder for what goes in and out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from immich_pipelines.bls import call
from immich_pipelines.clip_encoders import Encoders
from immich_pipelines.clip_image import ClipImage, ImageEmbedding, ImageJob
from immich_pipelines.decoding.client import DecodingPool
from immich_pipelines.errors import BadInput
from immich_pipelines.requests import Request, answer, failure


class TritonPythonModel:
    """One instance of the pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Prepare; the encoder is named by each request."""
        config = json.loads(args["model_config"])
        os.nice(int(config["parameters"]["nice"]["string_value"]))
        self._images = DecodingPool.of(config)
        encoders = Encoders(Path(args["model_repository"]).parent)
        self._pipeline = ClipImage(encoders, call, config["max_batch_size"], self._images.squeeze)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, each on its own account."""
        jobs = [_job(request) for request in requests]
        answers = iter(self._pipeline.run([job for job in jobs if isinstance(job, ImageJob)]))
        return [_response(next(answers) if isinstance(job, ImageJob) else job) for job in jobs]

    def finalize(self) -> None:
        """Stop the threads and leave the processes that decode."""
        self._pipeline.close()
        self._images.close()


def _job(triton_request: Any) -> ImageJob | BadInput:
    try:
        request = Request(triton_request)
        return ImageJob(request.payload("IMAGE"), request.text("encoder"), request.max_pixels())
    except BadInput as error:
        return error


def _response(result: ImageEmbedding | Exception) -> Any:
    if isinstance(result, Exception):
        return failure(result)
    size = np.array([[result.height, result.width]], np.int32)
    return answer({"EMBEDDING": result.embedding[None], "IMAGE_SIZE": size})
