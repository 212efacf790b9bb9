"""One session for each shape of a list, so that no session ever sees two: see ``immich_pipelines.shapes`` for why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from immich_pipelines.shapes import Shape
from onnxruntime_backend import arena
from onnxruntime_backend.engines import (
    NUMPY_TYPES,
    Array,
    Engine,
    OnnxRuntimeEngine,
    TensorInfo,
    describe,
    load_engine,
    open_dimensions,
)
from onnxruntime_backend.recorded_engine import RecordedEngine
from onnxruntime_backend.settings import ConfigError, Settings

WARM_UPS: Final = 2
"""Runs of each session before the model counts as loaded: the first chooses kernels, the second finds its memory."""

MOST_CHANGE: Final = 0.01
"""By how much the numbers of a session may differ, on average, between its first run and its last warm-up."""


class ShapedEngine:
    """Sessions for *shapes* of the one input, each made by *open_session* and run before anybody asks.

    All are open before the first one runs: see `RecordedEngine`. Raises `ConfigError` when one no longer computes what
    it did after the others have run.

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
        # The largest first: the memory that it takes holds all the others.
        for shape in sorted(shapes, key=lambda shape: (-int(np.prod(shape)), shape)):
            self._sessions.setdefault(shape[1:], {})[shape[0]] = open_session(shape)
        self._warm_up()

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

    def _warm_up(self) -> None:
        (tensor,) = self.inputs
        names = [output.name for output in self.outputs]
        first: dict[Shape, list[Array]] = {}
        for _ in range(WARM_UPS):
            for item, sessions in self._sessions.items():
                for batch, engine in sessions.items():
                    shape = (batch, *item)
                    values = engine.run(names, {tensor.name: _numbers(shape, NUMPY_TYPES[tensor.type])})
                    for name, before, value in zip(names, first.setdefault(shape, values), values, strict=True):
                        _expect_batch(name, value, batch)
                        if not _is_like(value, before):
                            raise ConfigError(
                                f"the session for {'x'.join(map(str, shape))} gives another '{name}' than at first"
                            )


def _numbers(shape: Shape, dtype: Any) -> Array:
    """Return an input that no part of a network is blind to, the same each time; numbers of words stay 0."""
    random = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return random.uniform(-1, 1, shape).astype(dtype)
    return random.integers(0, 256, shape, np.uint8) if dtype is np.uint8 else np.zeros(shape, dtype)


def _expect_batch(name: str, value: Array, batch: int) -> None:
    if value.shape[:1] != (batch,):
        raise ConfigError(
            f"output '{name}' has shape {list(value.shape)} for a batch of {batch}: such a model cannot be "
            "padded; remove the parameter 'shapes'"
        )


def _is_like(value: Array, before: Array) -> bool:
    """Tell whether *value* is *before* up to rounding; a class that is chosen between two equals may be the other."""
    if not np.issubdtype(value.dtype, np.floating):
        return True
    ours, theirs = (np.nan_to_num(each.astype(np.float64)) for each in (value, before))
    return bool(np.abs(ours - theirs).mean() <= MOST_CHANGE * np.abs(theirs).mean() + 1e-9)


def load(path: Path, settings: Settings, warn: Callable[[str], None]) -> ShapedEngine:
    """Load *path* once for each of the settings' shapes. Raises `ConfigError` on one that the model does not take."""
    if settings.engine == "openvino":
        return _load_in_openvino(path, settings)
    inputs, outputs = describe(path)
    _check(inputs, settings.shapes)
    if settings.shared_arena:
        settings = arena.share(settings, warn)
    (dimensions,) = open_dimensions(path).values()

    def sizes(shape: Shape) -> dict[str, int]:
        return {name: size for name, size in zip(dimensions, shape, strict=True) if isinstance(name, str)}

    def engine(open_session: Callable[[Shape], Engine]) -> ShapedEngine:
        return ShapedEngine(inputs, outputs, settings.shapes, open_session, _other(path, settings, inputs[0]))

    if settings.cuda_graphs:
        try:
            return engine(lambda shape: RecordedEngine(path, settings, sizes(shape), shape))
        except Exception as error:  # noqa: BLE001 - whatever it is, sessions without graphs compute the same
            warn(f"computes without CUDA graphs, more slowly: {' '.join(str(error).split())}")
    return engine(lambda shape: OnnxRuntimeEngine(path, settings, sizes(shape)))


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
