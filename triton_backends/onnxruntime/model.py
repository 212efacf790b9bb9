"""ONNX models in Triton without the C++ backend: what serves ``backend: "onnxruntime"`` in the embedded server.

A Python-based backend: Triton runs this file for every model that names it, one process per instance. See
``triton_models/README.md`` for the config keys it honours.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

# The logic is a package beside this folder, wherever --backend-directory points.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from onnxruntime_backend.batching import Job, Result, run_batch
from onnxruntime_backend.complete import check, complete, model_file
from onnxruntime_backend.engines import BadRequestError, Engine, load_engine
from onnxruntime_backend.settings import read_settings

from immich_pipelines.trimming import Trimmer, trim


class TritonPythonModel:
    """One instance of an ONNX model, in a process of its own."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Complete the config from the ONNX file, as the C++ backend does."""
        config = auto_complete_model_config.as_dict()
        directory = Path(pb_utils.get_model_dir())
        _or_refuse(config["name"], lambda: complete(config, model_file(directory, config)))
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model as its config asks. Raises ``TritonModelException`` with one line that says what is wrong."""
        name = args["model_name"]
        config = json.loads(args["model_config"])
        self._engine: Engine = _or_refuse(name, lambda: _load(name, config, args))
        self._batched = config["max_batch_size"] > 0
        self._trimmer = Trimmer(release=self._engine.release)
        trim()  # what loading took: 250 MB for a CLIP encoder

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, with one run where their shapes allow it."""
        jobs = [
            Job(
                {tensor.name(): tensor.as_numpy() for tensor in request.inputs()},
                request.requested_output_names(),
            )
            for request in requests
        ]
        try:
            return [_response(result) for result in run_batch(self._engine, jobs, batched=self._batched)]
        finally:
            self._trimmer.worked()

    def finalize(self) -> None:
        """Free the model."""
        if trimmer := getattr(self, "_trimmer", None):
            trimmer.close()
        if engine := getattr(self, "_engine", None):
            engine.close()


def _load(name: str, config: dict[str, Any], args: dict[str, str]) -> Engine:
    def warn(text: str) -> None:
        pb_utils.Logger.log_warn(f"model {name}: {text}")

    settings = read_settings(
        config, kind=args["model_instance_kind"], device_id=int(args["model_instance_device_id"]), warn=warn
    )
    # Before any thread starts: threads inherit it.
    os.nice(settings.nice)
    engine = load_engine(model_file(Path(pb_utils.get_model_dir()), config), settings, warn=warn)
    check(config, engine.inputs, engine.outputs)
    where = "CPU" if settings.device_id is None else f"GPU {settings.device_id}"
    pb_utils.Logger.log_info(
        f"model {name}: served by the embedded Python-based backend with {settings.engine} on {where}, "
        f"{settings.intra_op_threads} threads" + (f", {len(settings.shapes)} shapes" if settings.shapes else "")
    )
    return engine


def _or_refuse[T](name: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - whatever it is, Triton gets one line instead of a traceback
        raise pb_utils.TritonModelException(f"model {name}: {' '.join(str(error).split())}") from None


def _response(result: Result) -> Any:
    if isinstance(result, Exception):
        code = (
            pb_utils.TritonError.INVALID_ARG if isinstance(result, BadRequestError) else pb_utils.TritonError.INTERNAL
        )
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result), code))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in result.items()])
