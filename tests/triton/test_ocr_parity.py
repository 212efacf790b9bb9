"""The pipeline's logic against RapidOCR's own classes, every PP-OCR version, in this process."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ocr_exports
import pytest
from rapidocr_reference import RapidOcrReference

from immich_pipelines.ocr import Knobs, Networks, Page, read
from immich_pipelines.ocr_recognition import Decoder
from immich_triton.export.ocr.sources import VERSIONS

DATA = Path(__file__).resolve().parents[1] / "data"
IMAGES = sorted(path.name for path in (DATA / "images").iterdir())

Array = npt.NDArray[Any]


def networks(models: Path) -> Networks:
    """Give the exported networks, run by ONNX Runtime."""
    runtime = importlib.import_module("onnxruntime")
    detector, recognizer = (
        runtime.InferenceSession(str(models / name / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
        for name in ("ocr_det", "ocr_rec")
    )

    async def detect(image: Array) -> Array:
        (probabilities,) = detector.run(["text"], {"x": image})
        return np.asarray(probabilities)

    async def recognize(images: Array) -> tuple[Array, Array]:
        indices, scores = recognizer.run(["indices", "scores"], {"x": images})
        return indices, scores

    return Networks(detect, recognize, Decoder(recognizer.get_modelmeta().custom_metadata_map["character"]))


@pytest.fixture(scope="module", params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ours(version: str) -> Networks:
    return networks(ocr_exports.build(version))


@pytest.fixture(scope="module")
def reference(version: str) -> RapidOcrReference:
    return RapidOcrReference(version)


def image(name: str) -> bytes:
    return (DATA / "images" / name).read_bytes()


def pixels(page: Page) -> Array:
    height, width = page.size
    return page.boxes.reshape(-1, 4, 2) * np.array([width, height], np.float32)


@pytest.mark.parametrize("name", IMAGES)
def test_texts_and_boxes_are_those_of_rapidocr(ours: Networks, reference: RapidOcrReference, name: str) -> None:
    page = asyncio.run(read(image(name), Knobs(), ours))
    expected = {line.text: line for line in reference.read(image(name), own_widths=False)}
    assert sorted(page.texts) == sorted(expected)
    for text, score, box in zip(page.texts, page.text_scores, pixels(page), strict=True):
        assert np.abs(box - expected[text].box).max() <= 2
        assert abs(score - expected[text].score) < 1e-3


def test_the_width_of_the_padding_moves_spaces_at_most(ours: Networks, reference: RapidOcrReference) -> None:
    page = asyncio.run(read(image("zh_receipt.jpg"), Knobs(), ours))
    expected = reference.read(image("zh_receipt.jpg"), own_widths=True)
    assert sorted(map(plain, page.texts)) == sorted(plain(line.text) for line in expected)


def test_the_receipt_is_read_in_order(ours: Networks) -> None:
    page = asyncio.run(read(image("zh_receipt.jpg"), Knobs(), ours))
    stock = json.loads((DATA / "stock" / "zh_receipt.jpg.ocr.json").read_text())["ocr"]
    # Stock answers these lines from the bottom up.
    assert [plain(text) for text in page.texts] == [plain(text) for text in reversed(stock["text"])]
    assert (np.diff(page.boxes[:, 1]) > 0).all()


def plain(text: str) -> str:
    """Drop what the versions print differently: narrow spaces, and which yen sign it is."""
    return text.replace(" ", "").replace("￥", "¥")
