"""Real networks with a session for each shape: padding a batch changes no embedding and no text."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime_backend.engines import Engine, load_engine
from onnxruntime_backend.settings import Settings

from immich_pipelines import faces_detection, faces_recognition, shapes
from immich_pipelines.ocr import Knobs, Networks, read
from immich_pipelines.ocr_ctc import OUTPUTS, Decoder
from immich_pipelines.ocr_recognition import with_longer
from immich_pipelines.shapes import Shape

Array = npt.NDArray[Any]

IMAGES = Path(__file__).resolve().parents[1] / "data/images"


def loaded(models: Path, name: str, *sizes: Shape) -> Engine:
    return load_engine(models / name / "1/model.onnx", Settings(intra_op_threads=2, shapes=sizes))


def cosine(one: Array, other: Array) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_padding_faces_changes_no_embedding(face_models: Path) -> None:
    random = np.random.default_rng(0)
    side = faces_recognition.SIDE
    faces = random.integers(0, 256, (11, side, side, 3), np.uint8)
    recognizer, output = "face_rec_standin", faces_recognition.OUTPUT
    one = loaded(face_models, recognizer)
    shaped = loaded(face_models, recognizer, *shapes.of_batches((1, 8), (side, side, 3)))
    (together,) = shaped.run([output], {"pixels": faces})
    for face, vector in zip(faces, together, strict=True):
        (alone,) = one.run([output], {"pixels": face[np.newaxis]})
        assert cosine(alone[0], vector) >= 0.99999


def test_padding_images_changes_no_detection(face_models: Path) -> None:
    random = np.random.default_rng(1)
    side = faces_detection.SIDE
    images = random.integers(0, 256, (3, side, side, 3), np.uint8)
    names = list(faces_detection.OUTPUTS)
    shaped = loaded(face_models, "face_det_standin", *shapes.of_batches((4,), (side, side, 3)))
    one = loaded(face_models, "face_det_standin")
    for ours, theirs in zip(shaped.run(names, {"pixels": images}), one.run(names, {"pixels": images}), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def networks(detector: Engine, recognizer: Engine, decoder: Decoder) -> Networks:
    async def detect(image: Array) -> Array:
        (probabilities,) = detector.run(["text"], {"x": image})
        return probabilities

    async def recognize(images: Array) -> list[Array]:
        return recognizer.run(OUTPUTS, {"x": images})

    return Networks(detect, recognize, decoder, max_batch=32)


def test_padding_lines_changes_no_text(ocr_models: Path) -> None:
    widths = [320, 480, 640, 960]
    line_shapes = [(4, 3, shapes.LINE_HEIGHT, width) for width in widths]
    page_shapes = [(1, 3, 992, 736)]
    decoder = Decoder.of(ocr_models / "ocr_rec/1/model.onnx")

    def on_table(networks: Networks) -> Networks:
        return replace(networks, canvases=shapes.canvases(page_shapes), widths=with_longer(widths))

    one = networks(loaded(ocr_models, "ocr_det"), loaded(ocr_models, "ocr_rec"), decoder)
    shaped = networks(loaded(ocr_models, "ocr_det", *page_shapes), loaded(ocr_models, "ocr_rec", *line_shapes), decoder)
    data = (IMAGES / "zh_receipt.jpg").read_bytes()
    expected, found = (asyncio.run(read(data, Knobs(), on_table(each))) for each in (one, shaped))
    assert len(expected.texts) == 9
    assert found.texts == expected.texts
    np.testing.assert_allclose(found.text_scores, expected.text_scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
