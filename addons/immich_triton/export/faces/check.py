"""Compares exported face models with the originals, on photos of a face that scikit-image brings along."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from insightface.app.common import Face
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.scrfd import SCRFD
from PIL import Image
from skimage.data import astronaut

from immich_pipelines.faces import Faces, FacesPipeline, Job
from immich_pipelines.faces_detection import Session
from immich_pipelines.stragglers import in_order
from immich_triton.export.sessions import cpu_session

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MIN_SCORE = 0.5
MAX_PIXELS_OFF = 0.05
MAX_SCORE_OFF = 1e-4
MIN_COSINE = 0.99999


class CheckError(ValueError):
    """The exported models do not compute what the originals do; the message gives the figures."""


@dataclass(frozen=True)
class Differences:
    """The largest differences between exported and original models, over all faces of all check images."""

    faces: int
    box: float
    """In pixels."""
    landmark: float
    """In pixels."""
    score: float
    embedding: float
    """Of any one of the 512 numbers."""
    cosine: float
    """The lowest cosine between an embedding and the original's."""

    def as_dict(self) -> dict[str, float]:
        """Return plain numbers for JSON."""
        return {key: float(value) for key, value in asdict(self).items()}


class Originals:
    """The pack's own models, run by InsightFace on the CPU, one image and one face at a time."""

    def __init__(self, detector: Path, recognizer: Path) -> None:
        self._detector = SCRFD(str(detector), cpu_session(detector), static_shape_sessions=False)
        self.recognizer = ArcFaceONNX(str(recognizer), cpu_session(recognizer))

    def analyse(self, image: Pixels, min_score: float) -> list[Face]:
        """Return the faces of an RGB *image*, best first, with ``bbox``, ``det_score``, ``kps`` and ``embedding``."""
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        boxes, landmarks = self._detector.detect(bgr, input_size=(640, 640), det_thresh=min_score)
        faces = [Face(bbox=box[:4], det_score=box[4], kps=points) for box, points in zip(boxes, landmarks, strict=True)]
        with warnings.catch_warnings():
            # norm_crop calls what scikit-image 0.26 deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            for face in faces:
                self.recognizer.get(bgr, face)
        return faces


def compare(originals: Originals, detector: Path, recognizer: Path) -> Differences:
    """Run the exported *detector* and *recognizer* as the pipeline does, in batches, and measure against *originals*.

    Raises `CheckError` when they find other faces, or when a difference is larger than rounding can explain.
    """
    images = _images()
    pipeline = FacesPipeline(_open, _open)
    answers = in_order(pipeline.run([Job(_png(image), MIN_SCORE, str(detector), str(recognizer)) for image in images]))
    pairs = []
    for image, answer in zip(images, answers, strict=True):
        if isinstance(answer, Exception):
            raise CheckError(f"the exported models fail: {answer}") from answer
        expected = originals.analyse(image, MIN_SCORE)
        if len(answer.detections) != len(expected):
            found = len(answer.detections)
            raise CheckError(f"the exported detector finds {found} faces, the original {len(expected)}")
        pairs.append((answer, expected))
    differences = _measure(pairs)
    if not differences.faces:
        raise CheckError("the original detector finds no face in the check images, so nothing can be compared")
    if not (
        # In this way round what is no number does not pass.
        differences.box <= MAX_PIXELS_OFF
        and differences.landmark <= MAX_PIXELS_OFF
        and differences.score <= MAX_SCORE_OFF
        and differences.cosine >= MIN_COSINE
    ):
        raise CheckError(f"the exported models differ from the originals: {differences}")
    return differences


def _measure(pairs: Sequence[tuple[Faces, list[Face]]]) -> Differences:
    expected = [face for _, faces in pairs for face in faces]
    found = [answer.detections for answer, _ in pairs]
    ours = [embedding for answer, _ in pairs for embedding in answer.embeddings]
    return Differences(
        faces=len(expected),
        box=_largest([box for faces in found for box in faces.boxes], [face.bbox for face in expected]),
        landmark=_largest([points for faces in found for points in faces.landmarks], [face.kps for face in expected]),
        score=_largest([score for faces in found for score in faces.scores], [face.det_score for face in expected]),
        embedding=_largest(ours, [face.embedding for face in expected]),
        cosine=float(np.min([cosine(a, face.embedding) for a, face in zip(ours, expected, strict=True)], initial=1.0)),
    )


def _largest(ours: Sequence[Floats], theirs: Sequence[Floats]) -> float:
    # NumPy's maximum of what is no number is that; Python's may be any of the others.
    return float(np.max([np.abs(a - b).max(initial=0) for a, b in zip(ours, theirs, strict=True)], initial=0))


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between two embeddings."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _images() -> list[Pixels]:
    """Return RGB images of several shapes with one face, four faces, and none: each must keep its place in a batch."""
    photo: Pixels = astronaut()  # type: ignore[no-untyped-call]
    head = photo[:256, 96:352]
    # Four different faces: equal ones would have equal scores, and no order.
    several = np.vstack((np.hstack((head, head[:, ::-1] // 2)), np.hstack((head // 4 * 3, 255 - (255 - head) // 2))))
    return [
        photo,
        several,
        np.zeros((300, 200, 3), np.uint8),
        np.ascontiguousarray(photo[:400, ::-1]),
    ]


def _png(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _open(path: str) -> Session:
    session: Session = cpu_session(Path(path))
    return session
