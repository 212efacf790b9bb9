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
from immich_pipelines.requests import Request, serve
from immich_pipelines.trimming import Trimmer


class TritonPythonModel:
    """One instance of the pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Prepare; the encoder is named by each request."""
        config = json.loads(args["model_config"])
        os.nice(int(config["parameters"]["nice"]["string_value"]))
        self._images = DecodingPool.of(config)
        encoders = Encoders(Path(args["model_repository"]).parent)
        self._trimmer = Trimmer(release=self._images.release)
        self._pipeline = ClipImage(encoders, call, config["max_batch_size"], self._images.squeeze)

    def execute(self, requests: list[Any]) -> None:
        """Answer the requests of one dynamic batch, each on its own account and as soon as it can be."""
        serve(requests, _job, self._pipeline.run, _outputs)
        self._trimmer.worked()

    def finalize(self) -> None:
        """Stop the threads and leave the processes that decode."""
        self._pipeline.close()
        self._images.close()
        self._trimmer.close()


def _job(request: Request) -> ImageJob:
    return ImageJob(request.payload("IMAGE"), request.text("encoder"), request.max_pixels())


def _outputs(result: ImageEmbedding) -> dict[str, Any]:
    size = np.array([[result.height, result.width]], np.int32)
    weights = np.array([[result.fingerprint]], np.int64)
    return {"EMBEDDING": result.embedding[None], "IMAGE_SIZE": size, "FINGERPRINT": weights}
