"""One session for each shape of a list, so that no session ever sees two: see ``immich_pipelines.shapes`` for why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from immich_pipelines.shapes import Shape
from onnxruntime_backend import arena
from onnxruntime_backend.engines import (
    Array,
    Engine,
    OnnxRuntimeEngine,
    TensorInfo,
    describe,
    load_engine,
    open_dimensions,
)
from onnxruntime_backend.settings import ConfigError, Settings

WARM_UPS: Final = 2
"""Runs of each session before the model counts as loaded: the first chooses kernels, the second finds its memory."""

NUMPY_TYPES: Final = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
}


class ShapedEngine:
    """Sessions for *shapes* of the one input, each made by *open_session* and run before anybody asks.

    A batch is padded to the next size that its items have a session for, a larger one is cut in several; the rows of
    the padding are cut off the outputs. Items that no session takes go to *other*, or are refused without one.
    """

    def __init__(
        self,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        shapes: Sequence[Shape],
        open_session: Callable[[Shape], Engine],
        other: Engine | None = None,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._other = other
        self._sessions: dict[Shape, dict[int, Engine]] = {}
        (tensor,) = inputs
        # The largest first: the memory that it takes holds all the others.
        for shape in sorted(shapes, key=lambda shape: (-int(np.prod(shape)), shape)):
            engine = open_session(shape)
            self._sessions.setdefault(shape[1:], {})[shape[0]] = engine
            self._warm_up(engine, tensor, shape)

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute *outputs*, in as few runs as the sizes of the list allow."""
        ((name, value),) = feed.items()
        sessions = self._sessions.get(value.shape[1:])
        if sessions is None:
            if self._other is None:
                raise ValueError(f"there is no session for input '{name}' of shape {list(value.shape)}")
            return self._other.run(outputs, feed)
        largest = max(sessions)
        parts = [
            self._run_padded(sessions, outputs, name, value[start : start + largest])
            for start in range(0, max(len(value), 1), largest)
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def release(self) -> None:
        """Give back what the sessions can have anew."""
        for engine in (engine for sessions in self._sessions.values() for engine in sessions.values()):
            engine.release()
        if self._other is not None:
            self._other.release()

    def close(self) -> None:
        """Free the sessions."""
        for sessions in self._sessions.values():
            for engine in sessions.values():
                engine.close()
        self._sessions = {}
        if self._other is not None:
            self._other.close()

    @staticmethod
    def _run_padded(sessions: Mapping[int, Engine], outputs: Sequence[str], name: str, rows: Array) -> list[Array]:
        count = len(rows)
        size = min(batch for batch in sessions if batch >= count)
        if size > count:
            padded = np.zeros((size, *rows.shape[1:]), rows.dtype)
            padded[:count] = rows
            if count:  # an item that the network sees anyway: nothing but zeros may be a division by zero somewhere
                padded[count:] = rows[-1]
            rows = padded
        return [value[:count] for value in sessions[size].run(outputs, {name: rows})]

    def _warm_up(self, engine: Engine, tensor: TensorInfo, shape: Shape) -> None:
        names = [output.name for output in self.outputs]
        for _ in range(WARM_UPS):
            values = engine.run(names, {tensor.name: np.zeros(shape, NUMPY_TYPES[tensor.type])})
        for name, value in zip(names, values, strict=True):
            if value.shape[:1] != shape[:1]:
                raise ConfigError(
                    f"output '{name}' has shape {list(value.shape)} for a batch of {shape[0]}: such a model cannot be "
                    "padded; remove the parameter 'shapes'"
                )


def load(path: Path, settings: Settings, warn: Callable[[str], None]) -> ShapedEngine:
    """Load *path* once for each of the settings' shapes. Raises `ConfigError` on one that the model does not take."""
    if settings.engine == "openvino":
        return _load_in_openvino(path, settings)
    inputs, outputs = describe(path)
    _check(inputs, settings.shapes)
    if settings.shared_arena:
        settings = arena.share(settings, warn)
    (dimensions,) = open_dimensions(path).values()

    def open_session(shape: Shape) -> Engine:
        sizes = {name: size for name, size in zip(dimensions, shape, strict=True) if isinstance(name, str)}
        return OnnxRuntimeEngine(path, settings, sizes)

    return ShapedEngine(inputs, outputs, settings.shapes, open_session, _other(path, settings, inputs[0]))


def _load_in_openvino(path: Path, settings: Settings) -> ShapedEngine:
    from onnxruntime_backend import openvino_engine

    inputs, outputs = openvino_engine.describe(path)
    _check(inputs, settings.shapes)

    def open_session(shape: Shape) -> Engine:
        return openvino_engine.OpenVinoEngine(path, settings, shape)

    return ShapedEngine(inputs, outputs, settings.shapes, open_session, _other(path, settings, inputs[0]))


def _other(path: Path, settings: Settings, tensor: TensorInfo) -> Engine | None:
    """Return what takes any other shape: a session on the CPU, where a new shape costs nothing."""
    if tensor.shape is not None and -1 not in tensor.shape[1:]:
        return None  # there is no other
    on_cpu = replace(settings, shapes=(), device_id=None, cuda={}, session_entries={})
    return load_engine(path, on_cpu)


def _check(inputs: Sequence[TensorInfo], shapes: Sequence[Shape]) -> None:
    if len(inputs) != 1 or inputs[0].type not in NUMPY_TYPES:
        raise ConfigError(
            "parameter 'shapes' is for models with one input of numbers; this one has "
            + ", ".join(f"'{tensor.name}' ({tensor.type})" for tensor in inputs)
        )
    (tensor,) = inputs
    for shape in shapes:
        known = tensor.shape
        if known is not None and (
            len(known) != len(shape) or any(size not in (-1, given) for size, given in zip(known, shape, strict=True))
        ):
            raise ConfigError(
                f"parameter 'shapes' names {'x'.join(map(str, shape))}, but the model's input '{tensor.name}' "
                f"takes {list(known)}"
            )
