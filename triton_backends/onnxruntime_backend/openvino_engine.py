"""Runs an ONNX file with OpenVINO on the CPU, through its own package.

``onnxruntime-openvino`` would overwrite the ``onnxruntime`` that other packages bring along.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from immich_pipelines import onnx_metadata
from immich_pipelines.shapes import Shape
from immich_pipelines.trimming import trim
from onnxruntime_backend import mapped_weights
from onnxruntime_backend.engines import Array, TensorInfo
from onnxruntime_backend.settings import ConfigError, Settings

_TRITON_TYPES: Final = MappingProxyType(
    {
        "boolean": "TYPE_BOOL",
        "u8": "TYPE_UINT8",
        "u16": "TYPE_UINT16",
        "u32": "TYPE_UINT32",
        "u64": "TYPE_UINT64",
        "i8": "TYPE_INT8",
        "i16": "TYPE_INT16",
        "i32": "TYPE_INT32",
        "i64": "TYPE_INT64",
        "f16": "TYPE_FP16",
        "f32": "TYPE_FP32",
        "f64": "TYPE_FP64",
    }
)


class OpenVinoEngine:
    """A compiled OpenVINO model and its one inference request.

    *shape* fixes that of its one input. The weights are packed once for it then, not once more for each batch size,
    and a file of weights beside the model need not stay in memory.
    """

    def __init__(self, path: Path, settings: Settings, shape: Shape | None = None) -> None:
        core = _core()
        try:
            model = core.read_model(str(path))
            if shape is not None:
                model.reshape(list(shape))
            properties = _properties(settings)
            if onnx_metadata.too_wide(path):
                # No transformations to low precision: what would be multiplied as bytes becomes floats first.
                properties["LP_TRANSFORMS_MODE"] = "NO"
            compiled = core.compile_model(model, "CPU", properties)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConfigError(f"OpenVINO cannot compile the model ({reason}); remove embedded_accelerator") from error
        # Not asked of ONNX Runtime: that would load the weights a second time.
        self.inputs = tuple(map(_tensor, model.inputs))
        self.outputs = tuple(map(_tensor, model.outputs))
        self._compiled: Any = compiled
        self._request: Any = compiled.create_infer_request()
        self._ports = {tensor.name: compiled.output(tensor.name) for tensor in self.outputs}
        self._one_at_a_time = threading.Lock()
        self._largest_run = settings.largest_run
        self._largest = 0
        self._folder = path.parent
        mapped_weights.let_go(self._folder)

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute *outputs*. OpenVINO always computes all of the model's, only those asked for are copied out."""
        arrays = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        with self._one_at_a_time:
            if not self._largest_run or sum(array.size for array in arrays.values()) <= self._largest_run:
                return self._run(outputs, arrays)
            count = min((len(array) for array in arrays.values()), default=0)
            items = [
                self._run(outputs, {name: array[item : item + 1] for name, array in arrays.items()})
                for item in range(count)
            ]
        return items[0] if count == 1 else [np.concatenate(values) for values in zip(*items, strict=True)]

    def release(self) -> None:
        """Give back the buffers between layers; the next run makes them anew. A run that goes on keeps them."""
        if not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            if self._largest and self._compiled is not None:
                self._compiled.release_memory()
            self._largest = 0
            # What was packed for new shapes since.
            mapped_weights.let_go(self._folder)
        finally:
            self._one_at_a_time.release()

    def close(self) -> None:
        """Free the compiled model."""
        with self._one_at_a_time:
            self._request = self._compiled = None
            self._ports = {}

    def _run(self, outputs: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        size = sum(array.nbytes for array in arrays.values())
        if size > self._largest:
            self._make_room(size)
        self._request.infer(dict(arrays), share_inputs=True, share_outputs=True)
        # The request owns the memory and writes to it again at the next call.
        return [self._request.get_tensor(self._ports[name]).data.copy() for name in outputs]

    def _make_room(self, size: int) -> None:
        """Let go of buffers that are too small before larger ones are made, and of the holes that they leave.

        OpenVINO makes the larger ones first, and the C library cannot fill the holes: after photos of six sizes the
        text detector held 200 MiB, of which it used 120.
        """
        if self._largest:
            self._compiled.release_memory()
            trim()
        self._largest = size


def describe(path: Path) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the inputs and outputs of the ONNX file *path* as OpenVINO sees them. Raises `ConfigError`."""
    try:
        model = _core().read_model(str(path.resolve()))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"OpenVINO cannot read the model ({reason}); remove embedded_accelerator") from error
    return tuple(map(_tensor, model.inputs)), tuple(map(_tensor, model.outputs))


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            "embedded_accelerator openvino needs the package openvino in Triton's Python interpreter"
        ) from error
    return openvino.Core()


def _properties(settings: Settings) -> dict[str, str]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(settings.intra_op_threads),
        # Pinned threads sit on the first cores, in every process of the server on the same ones.
        "ENABLE_CPU_PINNING": "NO",
        # On CPUs with bf16 or f16 units OpenVINO would use these unasked, and leave ONNX Runtime's results by 1e-2.
        "INFERENCE_PRECISION_HINT": settings.inference_precision,
        # OpenVINO's own default of 5000 grows without an end in sight where every photo has its own size. Where it is
        # too small for the shapes of a model, kernels are prepared again and again: up to half the time.
        "CPU_RUNTIME_CACHE_CAPACITY": str(settings.shape_cache),
    }


def _tensor(port: Any) -> TensorInfo:
    name = port.get_any_name()
    kind = _TRITON_TYPES.get(port.get_element_type().get_type_name())
    if kind is None:
        raise ConfigError(
            f"embedded_accelerator openvino cannot run tensor '{name}' of {port.get_element_type().get_type_name()}"
        )
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return TensorInfo(name, kind, None)
    return TensorInfo(name, kind, tuple(-1 if size.is_dynamic else size.get_length() for size in shape))
