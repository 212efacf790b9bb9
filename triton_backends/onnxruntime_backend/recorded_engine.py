"""A session of one shape whose work on a card is recorded once and repeated: a CUDA graph.

A network is hundreds of kernels, each of which takes the card less time than the CPU needs to start it. A graph starts
them all at once. It repeats reads and writes at the very addresses that it was recorded with, so that input and outputs
keep their places, and nothing that lasts may be put where it computes afterwards: see `ShapedEngine`, which opens all
sessions before the first one runs.

`onnxruntime.ai <https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#using-cuda-graphs-preview>`_
says what ONNX Runtime asks for: one shape, one thread, and no operator that it puts on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from immich_pipelines.shapes import Shape
from onnxruntime_backend.engines import NUMPY_TYPES, Array, OnnxRuntimeEngine, TensorInfo, runtime_module
from onnxruntime_backend.settings import ConfigError, Settings


class RecordedEngine(OnnxRuntimeEngine):
    """An ONNX Runtime session whose one input has *shape*, recorded at its first run.

    Without a card it keeps its places and records nothing. Raises `ConfigError` where outputs have no fixed shape.
    """

    def __init__(self, path: Path, settings: Settings, sizes: Mapping[str, int], shape: Shape) -> None:
        on_card = settings.device_id is not None
        if on_card:
            settings = replace(settings, cuda={**settings.cuda, "enable_cuda_graph": "1"})
        super().__init__(path, settings, sizes)
        self._device, self._number = ("cuda", settings.device_id or 0) if on_card else ("cpu", 0)
        self._binding = self._session.io_binding()
        (tensor,) = self.inputs
        self._input = self._place(replace(tensor, shape=shape))
        self._binding.bind_ortvalue_input(tensor.name, self._input)
        self._outputs = {output.name: self._place(output) for output in self.outputs}
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute *outputs*; on a card the copies there and back are part of it."""
        (value,) = feed.values()
        self._input.update_inplace(np.ascontiguousarray(value))
        self._session.run_with_iobinding(self._binding, self._run_options)
        # Of what lies on a card that is a copy already.
        return [np.array(self._outputs[name].numpy(), copy=self._device == "cpu") for name in outputs]

    def close(self) -> None:
        """Free the session and its places."""
        self._binding = None
        self._outputs = {}
        super().close()

    def _place(self, tensor: TensorInfo) -> Any:
        if tensor.shape is None or -1 in tensor.shape or tensor.type not in NUMPY_TYPES:
            raise ConfigError(f"the size of '{tensor.name}' does not follow from that of the input")
        value = runtime_module().OrtValue
        return value.ortvalue_from_shape_and_type(
            list(tensor.shape), NUMPY_TYPES[tensor.type], self._device, self._number
        )
