"""Triton's entry to the ``clip_text`` pipeline; see ``config.pbtxt`` beside this folder for what goes in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from immich_pipelines.bls import call
from immich_pipelines.clip_encoders import Encoders
from immich_pipelines.clip_text import ClipText, TextEmbedding, TextJob
from immich_pipelines.errors import BadInput
from immich_pipelines.requests import Request, answer, failure


class TritonPythonModel:
    """One instance of the pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Prepare; the encoder is named by each request."""
        parameters = json.loads(args["model_config"])["parameters"]
        cache_size = int(parameters["cache_size"]["string_value"])
        self._pipeline = ClipText(Encoders(Path(args["model_repository"]).parent), call, cache_size)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, each on its own account."""
        jobs = [_job(request) for request in requests]
        answers = iter(self._pipeline.run([job for job in jobs if isinstance(job, TextJob)]))
        return [_response(next(answers) if isinstance(job, TextJob) else job) for job in jobs]


def _job(triton_request: Any) -> TextJob | BadInput:
    try:
        request = Request(triton_request)
        return TextJob(request.payload("TEXT"), request.text("encoder"))
    except BadInput as error:
        return error


def _response(result: TextEmbedding | Exception) -> Any:
    if isinstance(result, Exception):
        return failure(result)
    weights = np.array([[result.fingerprint]], np.int64)
    return answer({"EMBEDDING": result.embedding[None], "FINGERPRINT": weights})
