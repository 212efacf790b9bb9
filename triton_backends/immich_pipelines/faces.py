"""The ``faces`` pipeline: images to boxes, scores, landmarks and embeddings, for all requests of a dynamic batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from immich_pipelines.decode import MAX_PIXELS, Decode, decode_rgb
from immich_pipelines.faces_detection import MAX_FACES, Bounds, Detections, Detector, Floats, Pixels, Session
from immich_pipelines.faces_recognition import DIMENSION, Recognizer, align
from immich_pipelines.large import ordinary_first
from immich_pipelines.stragglers import PATIENCE, in_groups

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Job:
    """What one request asks for."""

    image: bytes
    min_score: float
    """Lowest score of a face, 0 to 1."""
    detector: str
    """Name of the detection model."""
    recognizer: str | None
    """Name of the recognition model; None for detection only."""
    max_pixels: int = MAX_PIXELS
    max_faces: int = MAX_FACES
    """How many faces at most, the best ones."""


@dataclass(frozen=True)
class Faces:
    """The answer to one request: its faces, best first."""

    height: int
    width: int
    detections: Detections
    embeddings: Floats
    """[N, 512], as the net gives them, not normalised; [0, 512] for detection only."""

    def tensors(self) -> dict[str, Array]:
        """Return the pipeline's outputs, each with a leading 1; boxes in whole pixels, not clipped, as stock's."""
        return {
            "BOXES": self.detections.boxes.round()[np.newaxis],
            "SCORES": self.detections.scores[np.newaxis],
            "LANDMARKS": self.detections.landmarks[np.newaxis],
            "EMBEDDINGS": self.embeddings[np.newaxis],
            "IMAGE_SIZE": np.array([[self.height, self.width]], np.int32),
        }


class FacesPipeline:
    """Answers batches of jobs; *open_detector* and *open_recognizer* give the session for a model's name.

    *decode* is called for up to *threads* images at a time. *patience*: see `stragglers`.
    """

    def __init__(
        self,
        open_detector: Callable[[str], Session],
        open_recognizer: Callable[[str], Session],
        decode: Decode = decode_rgb,
        threads: int = 8,
        patience: float = PATIENCE,
    ) -> None:
        self._decode = decode
        self._patience = patience
        self._open_detector = open_detector
        self._open_recognizer = open_recognizer
        self._detectors: dict[str, Detector] = {}
        self._recognizers: dict[str, Recognizer] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Faces | Exception]]:
        """Answer each job, as pairs of index and result: `BadInput` for its own image, all else is the server's fault.

        The images of all jobs that name the same models go through the detector together, and all their faces through
        the recogniser together, unless some take far longer to decode than the others.
        """
        ordinary, large = ordinary_first(jobs, lambda job: job.image)
        ordered = [(index, jobs[index]) for index in ordinary + large]
        for ready in in_groups(self._pool, self._open, ordered, self._patience):
            groups: dict[tuple[str, str | None], dict[int, Pixels]] = defaultdict(dict)
            for index, image in ready:
                if isinstance(image, Exception):
                    yield index, image
                else:
                    groups[jobs[index].detector, jobs[index].recognizer][index] = image
            for (detector, recognizer), images in groups.items():
                bounds = [Bounds(jobs[index].min_score, jobs[index].max_faces) for index in images]
                found = self._analyse_or_fail(list(images.values()), bounds, detector, recognizer)
                yield from zip(images, found, strict=True)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def _open(self, job: Job) -> Pixels | Exception:
        try:
            return self._decode(job.image, max_pixels=job.max_pixels)
        except Exception as error:  # noqa: BLE001 - becomes the answer of this job alone
            return error

    def _analyse_or_fail(
        self, images: Sequence[Pixels], bounds: Sequence[Bounds], detector: str, recognizer: str | None
    ) -> Sequence[Faces | Exception]:
        try:
            return self._analyse(images, bounds, detector, recognizer)
        except Exception as error:  # noqa: BLE001 - whatever a model or a library raises, it is the answer
            if len(images) == 1:
                return [error]
        # One of them may be to blame: each for itself, so that it does not take its neighbours along.
        return [
            self._analyse_or_fail([image], [bound], detector, recognizer)[0]
            for image, bound in zip(images, bounds, strict=True)
        ]

    def _analyse(
        self, images: Sequence[Pixels], bounds: Sequence[Bounds], detector: str, recognizer: str | None
    ) -> list[Faces]:
        if detector not in self._detectors:
            self._detectors[detector] = Detector(self._open_detector(detector))
        found = self._detectors[detector].detect(images, bounds)
        if recognizer is None:
            nothing = np.empty((0, DIMENSION), np.float32)
            return [_faces(image, own, nothing) for image, own in zip(images, found, strict=True)]
        if recognizer not in self._recognizers:
            self._recognizers[recognizer] = Recognizer(self._open_recognizer(recognizer))
        aligned = [_align(image, own) for image, own in zip(images, found, strict=True)]
        embeddings = self._recognizers[recognizer].embed([crop for _, crops in aligned for crop in crops])
        ends = np.cumsum([len(crops) for _, crops in aligned])[:-1]
        return [
            _faces(image, own, vectors)
            for image, (own, _), vectors in zip(images, aligned, np.split(embeddings, ends), strict=True)
        ]


def _align(image: Pixels, found: Detections) -> tuple[Detections, list[Pixels]]:
    """Cut out every face, and leave out those that cannot be aligned: their embedding would mean nothing."""
    crops = [align(image, landmarks) for landmarks in found.landmarks]
    kept = [index for index, crop in enumerate(crops) if crop is not None]
    return (
        Detections(found.boxes[kept], found.scores[kept], found.landmarks[kept]),
        [crop for crop in crops if crop is not None],
    )


def _faces(image: Pixels, detections: Detections, embeddings: Floats) -> Faces:
    height, width = image.shape[:2]
    return Faces(height, width, detections, embeddings)
