"""Triton's entry to the ``faces`` pipeline; see ``config.pbtxt`` beside this folder for what goes in and out."""

from __future__ import annotations

import json
from typing import Any

import cv2

from immich_pipelines import faces_detection, faces_recognition
from immich_pipelines.bls import TritonSession
from immich_pipelines.decoding.client import DecodingPool
from immich_pipelines.faces import Faces, FacesPipeline, Job
from immich_pipelines.faces_detection import MAX_FACES
from immich_pipelines.requests import Request, serve
from immich_pipelines.trimming import Trimmer


class TritonPythonModel:
    """One instance of the pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Prepare; the models are named by each request."""
        # Parallelism is that of the processes; threads of OpenCV's own would only push theirs aside.
        cv2.setNumThreads(1)
        self._images = DecodingPool.of(json.loads(args["model_config"]))
        self._trimmer = Trimmer(release=self._images.release)
        self._pipeline = FacesPipeline(_detector, _recognizer, self._images.decode)

    def execute(self, requests: list[Any]) -> None:
        """Answer the requests of one dynamic batch, each on its own account and as soon as it can be."""
        serve(requests, _job, self._pipeline.run, Faces.tensors)
        self._trimmer.worked()

    def finalize(self) -> None:
        """Stop the threads and leave the processes that decode."""
        self._pipeline.close()
        self._images.close()
        self._trimmer.close()


def _job(request: Request) -> Job:
    return Job(
        image=request.payload("IMAGE"),
        min_score=request.score("min_score", 0.7),
        detector=request.text("detector"),
        recognizer=request.text("recognizer") if request.flag("recognition", True) else None,
        max_pixels=request.max_pixels(),
        max_faces=request.count("max_faces", MAX_FACES),
    )


def _detector(model: str) -> TritonSession:
    inputs = {faces_detection.INPUT: ["batch", faces_detection.SIDE, faces_detection.SIDE, 3]}
    outputs = {name: ["batch", *shape] for name, shape in faces_detection.OUTPUTS.items()}
    return TritonSession(model, inputs, outputs)


def _recognizer(model: str) -> TritonSession:
    inputs = {faces_recognition.INPUT: ["batch", faces_recognition.SIDE, faces_recognition.SIDE, 3]}
    outputs = {faces_recognition.OUTPUT: ["batch", faces_recognition.DIMENSION]}
    return TritonSession(model, inputs, outputs)
