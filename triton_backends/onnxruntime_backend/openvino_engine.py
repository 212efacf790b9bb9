"""Runs an ONNX file with OpenVINO on the CPU, through its own package.

``onnxruntime-openvino`` would overwrite the ``onnxruntime`` that other packages bring along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from onnxruntime_backend.engines import Array, describe
from onnxruntime_backend.settings import ConfigError, Settings

_SHAPE_CACHE: Final = "64"
"""Prepared kernels that OpenVINO keeps per model, one for each operator and shape; its default of 5000 grows without
an end in sight where every photo has its own size."""


class OpenVinoEngine:
    """A compiled OpenVINO model and its one inference request."""

    def __init__(self, path: Path, settings: Settings) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ConfigError(
                "embedded_accelerator openvino needs the package openvino in Triton's Python interpreter"
            ) from error
        # Names, types and shapes as ONNX Runtime sees them, so that a model looks the same whatever runs it.
        self.inputs, self.outputs = describe(path)
        for tensor in self.inputs + self.outputs:
            if tensor.type == "TYPE_STRING":
                raise ConfigError(f"embedded_accelerator openvino cannot run tensor '{tensor.name}' of strings")
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", _properties(settings))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConfigError(f"OpenVINO cannot compile the model ({reason}); remove embedded_accelerator") from error
        self._request: Any = compiled.create_infer_request()
        self._ports = {tensor.name: compiled.output(tensor.name) for tensor in self.outputs}

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute *outputs*. OpenVINO always computes all of the model's, only those asked for are copied out."""
        self._request.infer(
            {name: np.ascontiguousarray(value) for name, value in feed.items()}, share_inputs=True, share_outputs=True
        )
        # The request owns the memory and writes to it again at the next call.
        return [self._request.get_tensor(self._ports[name]).data.copy() for name in outputs]

    def close(self) -> None:
        """Free the compiled model."""
        self._request = None
        self._ports = {}


def _properties(settings: Settings) -> dict[str, str]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(settings.intra_op_threads),
        # Pinned threads sit on the first cores, in every process of the server on the same ones.
        "ENABLE_CPU_PINNING": "NO",
        # On CPUs with bf16 or f16 units OpenVINO would use these unasked, and leave ONNX Runtime's results by 1e-2.
        "INFERENCE_PRECISION_HINT": settings.inference_precision,
        "CPU_RUNTIME_CACHE_CAPACITY": _SHAPE_CACHE,
    }
