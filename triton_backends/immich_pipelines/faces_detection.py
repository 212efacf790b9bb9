"""Face detection with SCRFD: many images in one run of the net, everything around it as InsightFace computes it.

SCRFD: "Sample and Computation Redistribution for Efficient Face Detection", https://arxiv.org/abs/2105.04714.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from immich_pipelines.parts import instead_of, part

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE: Final = 640
"""Width and height in pixels of what the net sees, as in stock Immich ML."""
NMS_IOU: Final = 0.4
"""Of two boxes that overlap more than this, the one with the lower score goes."""
STRIDES: Final = (8, 16, 32)
ANCHORS: Final = 2
"""Candidates per cell of each stride's grid."""
INPUT: Final = "pixels"
"""UINT8 [batch, 640, 640, 3], RGB; the exported net contains SCRFD's (x - 127.5) / 128."""
OUTPUTS: Final = {
    f"{kind}_{stride}": (ANCHORS * (SIDE // stride) ** 2, size)
    for kind, size in (("score", 1), ("bbox", 4), ("kps", 10))
    for stride in STRIDES
}
"""FP32 outputs in InsightFace's order, name to shape without the batch axis."""
MAX_BATCH: Final = 8
"""Images in one run; the exported model's ``max_batch_size``."""

MAX_FACES: Final = 300
"""Faces of one image unless the request says otherwise. Every one costs a run of the recogniser, and a threshold of
zero makes a face of each of 7,900 places in a photo: nine minutes in which nobody else's faces were found."""


class Session(Protocol):
    """What is needed of an ``onnxruntime.InferenceSession``, or of our ``TritonSession``."""

    def run(self, output_names: Sequence[str] | None, feed: dict[str, Any], /) -> list[Any]:
        """Run the model."""
        ...


@dataclass(frozen=True)
class Detections:
    """The faces of one image, best first; pixels of the original image, which a box or landmark may lie outside of."""

    boxes: Floats
    """[N, 4]: x1, y1, x2, y2."""
    scores: Floats
    """[N], each at least the asked-for minimum."""
    landmarks: Floats
    """[N, 5, 2]: x, y of left eye, right eye, nose, left and right corner of the mouth."""

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Bounds:
    """What a request may ask for: the lowest score of a face, 0 to 1, and how many at most, the best ones."""

    min_score: float
    max_faces: int = MAX_FACES


class Detector:
    """SCRFD behind *session*, which takes `INPUT` and gives `OUTPUTS`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._decoder = _Decoder()

    def detect(self, images: Sequence[Pixels], bounds: Sequence[Bounds]) -> list[Detections]:
        """Find the faces of each RGB image [height, width, 3]; *bounds* holds each image's own."""
        fitted = [letterbox(image) for image in images]
        found = []
        for start in range(0, len(fitted), MAX_BATCH):
            batch = np.stack([pixels for pixels, _ in fitted[start : start + MAX_BATCH]])
            outputs = self._session.run(list(OUTPUTS), {INPUT: batch})
            found += [[output[index : index + 1] for output in outputs] for index in range(len(batch))]
        return [
            self._decoder.decode(outputs, scale, own)
            for outputs, (_, scale), own in zip(found, fitted, bounds, strict=True)
        ]


def letterbox(image: Pixels) -> tuple[Pixels, float]:
    """Scale *image* [height, width, 3] to fit, top left on black; return uint8 [640, 640, 3] and the scale used.

    The same arithmetic as ``SCRFD.detect``: its box coordinates are ours to the last bit.
    """
    height, width = image.shape[:2]
    ratio = height / width
    new_width, new_height = (int(SIDE / ratio), SIDE) if ratio > 1 else (SIDE, int(SIDE * ratio))
    # A strip thinner than 1:640 would vanish, and OpenCV refuses an empty image.
    new_width, new_height = max(new_width, 1), max(new_height, 1)
    canvas = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    canvas[:new_height, :new_width] = cv2.resize(image, (new_width, new_height))
    return canvas, new_height / height


_NO_RUNTIME: Final = {name: ModuleType(name) for name in ("onnx", "onnxruntime")}
"""Instead of what would run the net: ours has run already, in a process of its own."""
_scrfd: Any = part("insightface.model_zoo.scrfd", _NO_RUNTIME)


class _Decoder(_scrfd.SCRFD):  # type: ignore[misc]  # the package has no types
    """InsightFace's decoding of anchors, on outputs that are there already."""

    def __init__(self) -> None:
        self._computed = _Computed()
        with instead_of(_NO_RUNTIME):
            super().__init__(session=self._computed)

    def decode(self, outputs: list[Floats], scale: float, bounds: Bounds) -> Detections:
        """Turn the net's *outputs* for one image ([1, candidates, size] each) into faces; *scale* as of `letterbox`."""
        with self._computed.holding(outputs):
            scores, boxes, landmarks = map(np.concatenate, self.forward(_NO_IMAGE, bounds.min_score))
        order = np.argsort(-scores.ravel(), kind="stable")
        # Scaled before the suppression, as SCRFD.detect does: its areas count pixels of the original image.
        faces = np.hstack((boxes / scale, scores)).astype(np.float32)[order]
        keep = _suppress(faces, bounds.max_faces)
        return Detections(faces[keep, :4], faces[keep, 4], (landmarks[order][keep] / scale).astype(np.float32))

    def _prepare_input_blob(self, _image: Pixels, _input_size: tuple[int, int]) -> Floats:
        # The net has run; only the shape is looked at.
        return _NO_BLOB


def _suppress(faces: Floats, most: int) -> list[int]:
    """Return the indices of *faces* ([N, 5]: x1, y1, x2, y2, score, best first) that no better one overlaps.

    InsightFace's non-maximum suppression with its arithmetic, but it stops at the *most* best: its time grows with the
    number of faces that are kept.
    """
    lefts, tops, rights, bottoms = faces[:, :4].T
    areas = (rights - lefts + 1) * (bottoms - tops + 1)
    keep: list[int] = []
    rest = np.arange(len(faces))
    while len(rest) and len(keep) < most:
        best, rest = int(rest[0]), rest[1:]
        keep.append(best)
        widths = np.minimum(rights[best], rights[rest]) - np.maximum(lefts[best], lefts[rest]) + 1
        heights = np.minimum(bottoms[best], bottoms[rest]) - np.maximum(tops[best], tops[rest]) + 1
        common = np.maximum(0.0, widths) * np.maximum(0.0, heights)
        rest = rest[common / (areas[best] + areas[rest] - common) <= NMS_IOU]
    return keep


class _Computed:
    """Stands where SCRFD expects its session, and gives the outputs of one image out of a batch."""

    def __init__(self) -> None:
        self._outputs: list[Floats] = []

    def holding(self, outputs: list[Floats]) -> _Computed:
        self._outputs = outputs
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._outputs = []

    def run(self, _names: Sequence[str], _feed: dict[str, Any]) -> list[Floats]:
        return self._outputs

    def get_inputs(self) -> list[_Node]:
        return [_Node(INPUT, [1, 3, SIDE, SIDE])]

    def get_outputs(self) -> list[_Node]:
        return [_Node(name, [1, *shape]) for name, shape in OUTPUTS.items()]


@dataclass(frozen=True)
class _Node:
    name: str
    shape: list[int]


_NO_IMAGE: Final[Pixels] = np.broadcast_to(np.uint8(0), (SIDE, SIDE, 3))
_NO_BLOB: Final[Floats] = np.broadcast_to(np.float32(0), (1, 3, SIDE, SIDE))
