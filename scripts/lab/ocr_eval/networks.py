"""The exported networks of a model repository sit the exam in this process: as on a CPU, and on the shape table."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime_backend.engines import Engine, load_engine
from onnxruntime_backend.settings import Settings

from immich_pipelines import shapes
from immich_pipelines.ocr import Knobs, Networks, read
from immich_pipelines.ocr import Page as Answer
from immich_pipelines.ocr_recognition import Decoder, with_longer
from immich_triton.export import onnx_graph
from ocr_eval.half import rounded
from ocr_eval.pages import Page
from ocr_eval.scoring import Found, Reading

Array = npt.NDArray[Any]


class NetworksReader:
    """Detector and recogniser of the repository *models* in ONNX Runtime (fp32) on *threads* threads.

    *table*: pages go onto the canvases and lines into the widths of `shapes`; a session takes all of them, which
    changes the time and nothing else. *half*: as they would compute in fp16, see `half.rounded`.
    """

    def __init__(self, models: Path, threads: int, *, table: bool, half: bool = False) -> None:
        self.name = "networks" + (" on the table" if table else "") + (", fp16" if half else "")
        detector, recognizer = (
            _engine(models / name / "1/model.onnx", threads, half=half) for name in ("ocr_det", "ocr_rec")
        )
        dictionary = onnx_graph.metadata(onnx.load(models / "ocr_rec/1/model.onnx"))["character"]
        self._networks = _networks(detector, recognizer, Decoder(dictionary))
        if table:
            self._networks = replace(
                self._networks,
                canvases=shapes.canvases(shapes.detector_shapes()),
                widths=with_longer(shapes.widths(shapes.recognizer_shapes())),
            )

    def read(self, page: Page) -> tuple[Reading, float]:
        """Read *page*: detection alone, whose boxes give the recall, then everything."""
        boxes = asyncio.run(read(page.jpeg, Knobs(recognition=False), self._networks))
        began = time.perf_counter()
        found = asyncio.run(read(page.jpeg, Knobs(), self._networks))
        seconds = time.perf_counter() - began
        lines = [Found(quad, text) for quad, text in zip(_quads(found), found.texts, strict=True)]
        return Reading([Found(quad) for quad in _quads(boxes)], lines), seconds


def _engine(path: Path, threads: int, *, half: bool) -> Engine:
    if not half:
        return load_engine(path, Settings(intra_op_threads=threads))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        onnx.save(rounded(onnx.load(path)), copy)
        return load_engine(copy, Settings(intra_op_threads=threads, level="disabled"))


def _networks(detector: Engine, recognizer: Engine, decoder: Decoder) -> Networks:
    async def detect(image: Array) -> Array:
        (probabilities,) = detector.run(["text"], {"x": image})
        return probabilities

    async def recognize(images: Array) -> tuple[Array, Array]:
        indices, scores = recognizer.run(["indices", "scores"], {"x": images})
        return indices, scores

    return Networks(detect, recognize, decoder)


def _quads(page: Answer) -> Array:
    height, width = page.size
    return page.boxes.reshape(-1, 4, 2).astype(np.float64) * [width, height]
