"""An ONNX network alone, on tensors that are ready: the limit of the machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnxruntime_backend.engines import NUMPY_TYPES, Engine, OnnxRuntimeEngine, load_engine
from onnxruntime_backend.settings import Settings, read_settings

from benchmarks.load import Run
from benchmarks.samples import Sample

FREE_SIDE: Final = 640
"""For sides that a network leaves open: what InsightFace gives its detectors."""


def in_onnxruntime(name: str, model: Path, threads: int) -> Network:
    """Return the network *model* in ONNX Runtime with *threads* threads, which spin as they do by default."""
    return Network(name, OnnxRuntimeEngine(model, Settings(intra_op_threads=threads, allow_spinning=True)))


def as_configured(name: str, model: Path, config: Mapping[str, Any]) -> Network:
    """Return the network *model* in the engine and with the threads that its *config* (as Triton gives it) asks for."""
    return Network(name, load_engine(model, read_settings(config, warn=lambda _text: None)))


class Network:
    """Runs *engine*, with batches as large as the concurrency asked for."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self._engine = engine
        self._outputs = [tensor.name for tensor in engine.outputs]

    async def run(self, samples: Sequence[Sample], concurrency: int) -> Run:
        """Compute as many items as there are samples; what is in the samples does not matter."""
        return await asyncio.to_thread(self._run, len(samples), concurrency)

    def _run(self, count: int, batch: int) -> Run:
        latencies: list[float] = []
        feed = self._feed(batch)
        started = time.perf_counter()
        while len(latencies) < count:
            began = time.perf_counter()
            self._engine.run(self._outputs, feed)
            latencies += [time.perf_counter() - began] * batch
        return Run(time.perf_counter() - started, latencies)

    def _feed(self, batch: int) -> dict[str, npt.NDArray[Any]]:
        """Fill the input with numbers as they occur: normalised pixels, plain pixels, or token ids."""
        (tensor,) = self._engine.inputs
        shape = [batch, *(side if side > 0 else FREE_SIDE for side in (tensor.shape or ())[1:])]
        generator = np.random.default_rng(0)
        dtype = np.dtype(NUMPY_TYPES[tensor.type])
        if np.issubdtype(dtype, np.floating):
            return {tensor.name: generator.normal(size=shape).astype(dtype)}
        return {tensor.name: generator.integers(1, 256 if dtype == np.uint8 else 1000, size=shape).astype(dtype)}
