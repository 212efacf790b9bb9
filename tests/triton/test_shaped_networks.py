"""Real networks with a session for each shape: padding a batch changes no embedding and no text."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from clip_standins import LIMIT, TEXTS, ClipStandins, centred_cosines, checked
from onnxruntime_backend.engines import Engine, OnnxRuntimeEngine, load_engine
from onnxruntime_backend.settings import Settings
from PIL import Image

from immich_pipelines import faces_detection, faces_recognition, shapes
from immich_pipelines.clip_tokenizer import Tokenizer
from immich_pipelines.clip_transform import image_transform
from immich_pipelines.ocr import Knobs, Networks, read
from immich_pipelines.ocr_batches import Limits, with_longer
from immich_pipelines.ocr_ctc import OUTPUTS, Decoder
from immich_pipelines.shapes import Shape
from immich_triton.export.clip.models import CLIP_MODELS, CONTEXT_LENGTH

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


@pytest.fixture(scope="module")
def clip_folders(clip_standins: ClipStandins) -> dict[tuple[str, str], Path]:
    """The folders that hold ``visual/1/model.onnx`` and ``textual/1/model.onnx`` of small models, by name and type."""
    _, folder = checked()
    return {
        (model, precision): folder / f"{model}-{precision}-False"
        for model in ("RN50", "ViT-B-16")
        for precision in ("fp32", "fp16")
    }


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("model", ["RN50", "ViT-B-16"])
def test_padding_a_batch_changes_no_embedding_of_clip(
    model: str, precision: str, clip_folders: dict[tuple[str, str], Path], clip_standins: ClipStandins
) -> None:
    folder, side = clip_folders[model, precision], CLIP_MODELS[model].image_size
    pictures = [np.asarray(image_transform(Image.open(path).convert("RGB"), side)) for path in clip_standins.images]
    vocabulary = clip_standins.models / CLIP_MODELS[model].textual / "vocab.txt"
    tokens = [Tokenizer(vocabulary).encode(text) for text in TEXTS]
    for tower, name, sizes, items in (
        ("visual", "IMAGE", shapes.of_batches(shapes.CLIP_VISUAL, (3, side, side)), pictures[:11]),
        ("textual", "TOKENS", shapes.of_batches(shapes.CLIP_TEXTUAL, (CONTEXT_LENGTH,)), tokens[:19]),
    ):
        path, value = folder / tower / "1/model.onnx", np.stack(items)
        one, shaped = (load_engine(path, Settings(intra_op_threads=2, shapes=tuple(each))) for each in ((), sizes))
        alone = np.concatenate([one.run(["EMBEDDING"], {name: value[i : i + 1]})[0] for i in range(len(value))])
        together, marks = shaped.run(["EMBEDDING", "FINGERPRINT"], {name: value})
        assert len(marks) == len(together) == len(value)
        for ours, theirs in zip(together, alone, strict=True):
            assert cosine(ours, theirs) >= 0.99999
        if precision == "fp32":
            # Random weights put all embeddings close together: what tells them apart is what is compared. In half
            # precision a batch of another size rounds differently, padded or not.
            assert centred_cosines(together, alone).min() >= LIMIT
        # Whatever fills the rest of a batch is no business of the rows before it.
        (padded,) = shaped.run(["EMBEDDING"], {name: value[:3]})
        np.testing.assert_allclose(padded, together[:3], atol=1e-6)


def networks(detector: Engine, recognizer: Engine, decoder: Decoder) -> Networks:
    async def detect(page: Array) -> Array:
        (probabilities,) = detector.run(["text"], {"x": page})
        return probabilities

    async def recognize(images: Array) -> list[Array]:
        return recognizer.run(OUTPUTS, {"x": images})

    return Networks(detect, recognize, decoder, Limits(32, 0))


def test_padding_lines_changes_no_text(gpu_ocr_models: Path) -> None:
    widths = [320, 480, 640, 960]
    line_shapes = [(4, 3, shapes.LINE_HEIGHT, width) for width in widths]
    page_shapes = [(1, 992, 736, 3)]
    decoder = Decoder.of(gpu_ocr_models / "ocr_rec/1/model.onnx")

    def on_table(networks: Networks) -> Networks:
        return replace(networks, canvases=shapes.canvases(page_shapes), limits=Limits(32, 0, with_longer(widths)))

    one, shaped = (
        networks(loaded(gpu_ocr_models, "ocr_det", *pages), loaded(gpu_ocr_models, "ocr_rec", *lines), decoder)
        for pages, lines in (((), ()), (page_shapes, line_shapes))
    )
    data = (IMAGES / "zh_receipt.jpg").read_bytes()
    expected, found = (asyncio.run(read(data, Knobs(), on_table(each))) for each in (one, shaped))
    assert len(expected.texts) == 9
    assert found.texts == expected.texts
    np.testing.assert_allclose(found.text_scores, expected.text_scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)


def test_what_is_larger_than_the_table_is_read_on_the_cpu_and_prepares_no_session(
    gpu_ocr_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[OnnxRuntimeEngine] = []
    seen: dict[int, set[Shape]] = {}
    load, run = OnnxRuntimeEngine.__init__, OnnxRuntimeEngine.run

    def counted_load(engine: OnnxRuntimeEngine, *arguments: Any, **more: Any) -> None:
        opened.append(engine)
        load(engine, *arguments, **more)

    def counted_run(engine: OnnxRuntimeEngine, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        seen.setdefault(id(engine), set()).add(feed["x"].shape)
        return run(engine, outputs, feed)

    decoder = Decoder.of(gpu_ocr_models / "ocr_rec/1/model.onnx")
    page_shapes, line_shapes = [(1, 992, 736, 3)], [(4, 3, shapes.LINE_HEIGHT, width) for width in (320, 480)]

    def pair(*sizes: Sequence[Shape]) -> Networks:
        detector, recognizer = (
            loaded(gpu_ocr_models, name, *each) for name, each in zip(("ocr_det", "ocr_rec"), sizes, strict=True)
        )
        return replace(
            networks(detector, recognizer, decoder),
            canvases=shapes.canvases(page_shapes),
            limits=Limits(32, 0, with_longer(shapes.widths(line_shapes))),
        )

    plain = pair([], [])
    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", counted_load)
    monkeypatch.setattr(OnnxRuntimeEngine, "run", counted_run)
    shaped = pair(page_shapes, line_shapes)
    at_load = len(opened)
    assert at_load == len(page_shapes) + len(line_shapes) + 2, "one for each shape, and one for all the rest"
    with Image.open(IMAGES / "zh_receipt.jpg") as receipt:
        long = np.concatenate([np.asarray(receipt.convert("RGB"))] * 3)  # of three, one below the other
    tall = io.BytesIO()
    Image.fromarray(long).save(tall, "PNG")
    for data in (tall.getvalue(), (IMAGES / "zh_receipt.jpg").read_bytes()):
        expected, found = (asyncio.run(read(data, Knobs(), each)) for each in (plain, shaped))
        assert found.texts == expected.texts
        assert len(found.texts) >= 9
    assert len(opened) == at_load, "no session is made for a request"
    of_the_table, others = {*page_shapes, *line_shapes}, [seen[id(engine)] for engine in opened]
    for shape in of_the_table:
        assert others.count({shape}) == 1, "a session of the table has seen its own shape and no other"
        others.remove({shape})
    assert len(others) == 2
    assert not set.union(*others) & of_the_table
    assert any(shape[1] > 2000 for shape in set.union(*others)), "the long page"
