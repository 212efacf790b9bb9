"""The OCR pipeline's logic over exported networks in this process, and what it must have in common with RapidOCR."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import ocr_exports
from rapidocr_reference import RapidOcrReference

from immich_pipelines.ocr import Knobs, Networks, Page, read
from immich_pipelines.ocr_ctc import OUTPUTS, Decoder

Array = npt.NDArray[Any]

_FOLDER = Path(__file__).with_name("data") / "images"
IMAGES = sorted(path.name for path in _FOLDER.iterdir())

BETTER: Final[Mapping[tuple[str, str], Mapping[str, str]]] = MappingProxyType(
    {
        ("v4", "mixed_sign.webp"): {"Gate12登机口": "Gate 12登机口", "请勿吸烟NoSmoking": "请勿吸烟No Smoking"},
        ("v5", "mixed_sign.webp"): {"请勿吸煙 No Smoking": "请勿吸烟 No Smoking"},
    }
)
"""What RapidOCR reads with a version on an image, and the pipeline on purpose otherwise, as it is written there: spaces
that are not lost, and the script of the page."""


@dataclass(frozen=True)
class Readers:
    """The pipeline and RapidOCR with the same PP-OCR version."""

    version: str
    ours: Networks
    reference: RapidOcrReference

    @classmethod
    def of(cls, version: str) -> Readers:
        """Return those of *version*; the export has been compared with the original when it was made."""
        return cls(version, networks(ocr_exports.build(version, "f32")), RapidOcrReference(version))

    def read(self, name: str) -> Page:
        """Return what the pipeline reads on the example image *name*."""
        return asyncio.run(read((_FOLDER / name).read_bytes(), Knobs(), self.ours))

    def compare(self, name: str) -> None:
        """Expect texts, scores and boxes of the pipeline to be RapidOCR's, but for what differs on purpose."""
        page = self.read(name)
        lines = self.reference.read((_FOLDER / name).read_bytes(), own_widths=False)
        better = BETTER.get((self.version, name), {})
        assert better.keys() <= {line.text for line in lines}
        expected = {better.get(line.text, line.text): line for line in lines}
        assert sorted(page.texts) == sorted(expected)
        height, width = page.size
        boxes = page.boxes.reshape(-1, 4, 2) * np.array([width, height], np.float32)
        for text, score, box in zip(page.texts, page.text_scores, boxes, strict=True):
            assert np.abs(box - expected[text].box).max() <= 2
            assert abs(score - expected[text].score) < 1e-3

    def compare_widths(self, name: str) -> None:
        """Expect the same texts but for spaces where RapidOCR pads lines as it likes."""
        expected = self.reference.read((_FOLDER / name).read_bytes(), own_widths=True)
        assert sorted(map(plain, self.read(name).texts)) == sorted(plain(line.text) for line in expected)


def plain(text: str) -> str:
    """Drop what the versions print differently: narrow spaces, and which yen sign it is."""
    return text.replace(" ", "").replace("￥", "¥")


def networks(models: Path) -> Networks:
    """Return the networks in the repository *models*, in f32."""
    runtime = importlib.import_module("onnxruntime")
    detector, recognizer = (
        runtime.InferenceSession(str(models / name / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
        for name in ("ocr_det", "ocr_rec")
    )

    async def detect(page: Array) -> Array:
        (probabilities,) = detector.run(["text"], {"x": page})
        return np.asarray(probabilities)

    async def recognize(images: Array) -> list[Array]:
        steps: list[Array] = recognizer.run(OUTPUTS, {"x": images})
        return steps

    return Networks(detect, recognize, Decoder.of(models / "ocr_rec" / "1" / "model.onnx"))
