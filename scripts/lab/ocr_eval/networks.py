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
from google.protobuf import text_format
from onnxruntime_backend.engines import Engine, load_engine
from onnxruntime_backend.settings import Settings
from tritonclient.grpc import model_config_pb2

from immich_pipelines import shapes
from immich_pipelines.ocr import Knobs, Networks, read
from immich_pipelines.ocr import Page as Answer
from immich_pipelines.ocr_batches import Limits, with_longer
from immich_pipelines.ocr_ctc import OUTPUTS, Decoder
from immich_pipelines.ocr_detection import as_floats
from ocr_eval.half import rounded
from ocr_eval.pages import Page
from ocr_eval.scoring import Found, Reading

Array = npt.NDArray[Any]


class NetworksReader:
    """Detector and recogniser of the repository *models* on *threads* threads: in ONNX Runtime, in fp32.

    With *precision*, in OpenVINO, as an export runs on a CPU that has units for it: a network whose config asks for f32
    is computed in f32 there, too. *table*: pages go onto the canvases and lines into the
    widths of `shapes`; a session takes all of them, which changes the time and nothing else. *half*: as they would
    compute in fp16, see `half.rounded`.
    """

    def __init__(
        self, models: Path, threads: int, *, table: bool = False, precision: str = "", half: bool = False
    ) -> None:
        base = f"{models.name} {precision}" if precision else "networks"
        self.name = base + (" on the table" if table else "") + (", fp16" if half else "")
        detector, recognizer = (
            _engine(models / name / "1/model.onnx", _settings(models / name, threads, precision), half=half)
            for name in ("ocr_det", "ocr_rec")
        )
        self._networks = _networks(detector, recognizer, Decoder.of(models / "ocr_rec/1/model.onnx"))
        if table:
            self._networks = replace(
                self._networks,
                canvases=shapes.canvases(shapes.detector_shapes()),
                limits=Limits(columns=0, widths=with_longer(shapes.widths(shapes.recognizer_shapes()))),
            )

    def read(self, page: Page) -> tuple[Reading, float]:
        """Read *page*: detection alone, whose boxes give the recall, then everything."""
        boxes = asyncio.run(read(page.jpeg, Knobs(recognition=False), self._networks))
        began = time.perf_counter()
        found = asyncio.run(read(page.jpeg, Knobs(), self._networks))
        seconds = time.perf_counter() - began
        lines = [Found(quad, text) for quad, text in zip(_quads(found), found.texts, strict=True)]
        return Reading([Found(quad) for quad in _quads(boxes)], lines), seconds


def _settings(folder: Path, threads: int, precision: str) -> Settings:
    if not precision:
        return Settings(intra_op_threads=threads)
    config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())
    if config.parameters["inference_precision"].string_value == "f32":
        precision = "f32"
    return Settings(intra_op_threads=threads, engine="openvino", inference_precision=precision, shape_cache=20_000)


def _engine(path: Path, settings: Settings, *, half: bool) -> Engine:
    if not half:
        return load_engine(path, settings)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        onnx.save(rounded(onnx.load(path)), copy)
        return load_engine(copy, replace(settings, level="disabled"))


def _networks(detector: Engine, recognizer: Engine, decoder: Decoder) -> Networks:
    # An earlier export has fewer.
    there = {tensor.name for tensor in recognizer.outputs}
    outputs = [name for name in OUTPUTS if name in there]
    as_pixels = detector.inputs[0].type == "TYPE_UINT8"

    async def detect(page: Array) -> Array:
        (probabilities,) = detector.run(["text"], {"x": page if as_pixels else as_floats(page)})
        return probabilities

    async def recognize(images: Array) -> list[Array]:
        return recognizer.run(outputs, {"x": images})

    return Networks(detect, recognize, decoder)


def _quads(page: Answer) -> Array:
    height, width = page.size
    return page.boxes.reshape(-1, 4, 2).astype(np.float64) * [width, height]
