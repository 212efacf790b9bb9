"""A model repository that loads in seconds, for tests of what runs Triton."""

from __future__ import annotations

from pathlib import Path

from immich_triton.ml.route_file import Route, write_route
from immich_triton.triton.pipelines import Pipeline

CONFIG = """
name: "{name}"
backend: "{backend}"
max_batch_size: 8
input [ {{ name: "IN", data_type: TYPE_FP32, dims: [ -1 ] }} ]
output [ {{ name: "OUT", data_type: TYPE_FP32, dims: [ -1 ] }} ]
instance_group [ {{ count: 1, kind: KIND_CPU }} ]
"""

ECHO = """
import triton_python_backend_utils as pb_utils

from immich_pipelines.errors import BadInput  # what pipelines share is importable


class TritonPythonModel:
    def execute(self, requests):
        values = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)]) for value in values]
"""

BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("the dictionary does not fit the weights")

    def execute(self, requests):
        raise NotImplementedError
"""

FORGETFUL = f"""
import pathlib
{ECHO}
    def initialize(self, args):
        if (pathlib.Path(args["model_repository"]) / "no memory").exists():
            raise MemoryError("there is no room for the weights")
"""
"""Echoes, and cannot be loaded while there is a file ``no memory`` in its folder."""

PATIENT = f"""
import pathlib
import time
{ECHO}
    def initialize(self, args):
        while not (pathlib.Path(args["model_repository"]) / "go").exists():
            time.sleep(0.1)
"""
"""Echoes, and is not loaded before there is a file ``go`` in its folder."""


def write_model(models: Path, name: str, backend: str = "python", code: str | None = ECHO) -> Path:
    """Write ``models/name`` and return it; without *code* there is no model file."""
    folder = models / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name, backend=backend))
    if code is not None:
        (folder / "1/model.py").write_text(code)
    return folder


def write_ocr_route(folder: Path) -> None:
    """Let the model in *folder* stand for OCR in the eyes of the gateway."""
    pipeline = Pipeline(folder.name, types=["detection", "recognition"], models=[])
    write_route(folder, Route("ocr", ["PP-OCRv5_mobile"], [pipeline], weights_sha256="0" * 64))
