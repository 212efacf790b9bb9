"""An ONNX network alone in ONNX Runtime, on tensors that are ready: the limit of the machine."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from toolbox.bench.load import Run
from toolbox.bench.samples import Sample

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
}
FREE_SIDE: Final = 640
"""For sides that a network leaves open: what InsightFace gives its detectors."""


class Network:
    """Runs ``model.onnx`` on *threads* threads, with batches as large as the concurrency asked for."""

    def __init__(self, name: str, model: Path, threads: int) -> None:
        self.name = name
        # By name: it publishes no types that mypy understands.
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._node = self._session.get_inputs()[0]

    async def run(self, samples: Sequence[Sample], concurrency: int) -> Run:
        """Compute as many items as there are samples; what is in the samples does not matter."""
        return await asyncio.to_thread(self._run, len(samples), concurrency)

    def _run(self, count: int, batch: int) -> Run:
        latencies: list[float] = []
        feed = self._tensor(batch)
        started = time.perf_counter()
        while len(latencies) < count:
            began = time.perf_counter()
            self._session.run(None, {self._node.name: feed})
            latencies += [time.perf_counter() - began] * batch
        return Run(time.perf_counter() - started, latencies)

    def _tensor(self, batch: int) -> npt.NDArray[Any]:
        """Fill the input with numbers as they occur: normalised pixels, plain pixels, or token ids."""
        shape = [batch, *(side if isinstance(side, int) else FREE_SIDE for side in self._node.shape[1:])]
        generator = np.random.default_rng(0)
        dtype = DTYPES[self._node.type]
        if np.issubdtype(dtype, np.floating):
            return generator.normal(size=shape).astype(dtype)
        return generator.integers(1, 256 if dtype == np.uint8 else 1000, size=shape).astype(dtype)
