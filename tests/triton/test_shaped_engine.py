"""A session for each shape: it sees that shape and no other, and padding changes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime_backend import arena
from onnxruntime_backend.batching import Job, run_batch
from onnxruntime_backend.engines import Engine, TensorInfo, load_engine
from onnxruntime_backend.settings import ConfigError, Settings
from onnxruntime_backend.shaped_engine import ShapedEngine
from triton import tiny_models
from triton.tiny_models import Array

from immich_pipelines.shapes import Shape

RANDOM = np.random.default_rng(3)
INPUT = TensorInfo("x", "TYPE_FP32", (-1, 3, -1, -1))
OUTPUT = TensorInfo("y", "TYPE_FP32", (-1, 1))
SHAPES: list[Shape] = [(1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 16)]


class Counting:
    """Adds up each item, and remembers the shapes that it saw."""

    def __init__(self, log: list[Counting], *, axis: bool = True) -> None:
        self.inputs, self.outputs = (INPUT,), (OUTPUT,)
        self.seen: list[Shape] = []
        self.closed = self.released = False
        self._axis = axis
        log.append(self)

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        self.seen.append(feed["x"].shape)
        sums = feed["x"].sum(axis=(1, 2, 3), keepdims=False)[:, np.newaxis]
        return [sums if self._axis else sums[:0]]

    def release(self) -> None:
        self.released = True

    def close(self) -> None:
        self.closed = True


def shaped(log: list[Counting], *, other: Engine | None = None) -> ShapedEngine:
    return ShapedEngine((INPUT,), (OUTPUT,), SHAPES, lambda _shape: Counting(log), other)


def items(count: int, height: int, width: int) -> Array:
    return RANDOM.standard_normal((count, 3, height, width)).astype(np.float32)


def test_every_session_sees_exactly_one_shape_in_its_life() -> None:
    log: list[Counting] = []
    rest: list[Counting] = []
    engine = shaped(log, other=Counting(rest))
    assert all(len(session.seen) > 0 for session in log), "each has run before anybody asks"
    for count in [*range(12), 3, 1, 40, 2]:
        for size in ((8, 8), (8, 16), (7, 7)):
            value = items(count, *size)
            (result,) = engine.run(["y"], {"x": value})
            assert result.shape == (count, 1)
            np.testing.assert_allclose(result[:, 0], value.sum(axis=(1, 2, 3)), rtol=1e-5)
    assert len(log) == len(SHAPES)
    assert sorted(shape for session in log for shape in set(session.seen)) == sorted(SHAPES)
    assert {shape[2:] for shape in rest[0].seen} == {(7, 7)}, "only what has no session goes elsewhere"


def test_a_batch_takes_as_few_runs_as_the_sizes_allow() -> None:
    log: list[Counting] = []
    engine = shaped(log)
    runs = {shape: session for session in log for shape in set(session.seen)}
    before = {shape: len(session.seen) for shape, session in runs.items()}
    engine.run(["y"], {"x": items(9, 8, 8)})
    assert len(runs[4, 3, 8, 8].seen) - before[4, 3, 8, 8] == 2
    assert len(runs[1, 3, 8, 8].seen) - before[1, 3, 8, 8] == 1


def test_what_no_session_takes_is_refused_where_there_is_nothing_else() -> None:
    with pytest.raises(ValueError, match=r"no session for input 'x' of shape \[1, 3, 9, 9\]"):
        shaped([]).run(["y"], {"x": items(1, 9, 9)})


def test_all_sessions_give_their_memory_back() -> None:
    log: list[Counting] = []
    shaped(log, other=Counting(log)).release()
    assert all(session.released for session in log)


def test_closing_frees_all_sessions() -> None:
    log: list[Counting] = []
    shaped(log, other=Counting(log)).close()
    assert all(session.closed for session in log)


def test_a_model_whose_output_has_no_batch_axis_is_refused() -> None:
    with pytest.raises(ConfigError, match="output 'y' has shape"):
        ShapedEngine((INPUT,), (OUTPUT,), SHAPES, lambda _shape: Counting([], axis=False))


class Forgetful(Counting):
    """Computes something else when another session has run since."""

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        (values,) = super().run(outputs, feed)
        return [values * len(self.seen)]


def test_all_sessions_are_open_before_the_first_one_runs() -> None:
    log: list[Counting] = []
    opened: list[int] = []

    def open_session(_shape: Shape) -> Counting:
        opened.append(sum(len(session.seen) for session in log))
        return Counting(log)

    ShapedEngine((INPUT,), (OUTPUT,), SHAPES, open_session)
    assert opened == [0, 0, 0], "what is opened later may take the memory that a recorded one computes in"


def test_a_session_that_computes_something_else_after_the_others_have_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="the session for 8x3x8x16 gives another 'y' than at first"):
        ShapedEngine((INPUT,), (OUTPUT,), SHAPES, lambda _shape: Forgetful([]))


def settings(*shapes: Shape, **more: Any) -> Settings:
    return Settings(intra_op_threads=2, shapes=shapes, **more)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_real_model_gives_what_it_gives_in_one_session(tmp_path: Path, engine: str) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    one = load_engine(path, Settings(intra_op_threads=2))
    many = load_engine(path, settings((1, 3, 24, 32), (4, 3, 24, 32), (2, 3, 32, 24), engine=engine), warn=pytest.fail)
    for count, height, width in [(1, 24, 32), (3, 24, 32), (5, 24, 32), (1, 32, 24), (2, 20, 20), (0, 24, 32)]:
        feed = {"x": items(count, height, width)}
        (expected,) = one.run(["y"], feed) if count else (np.zeros((0, 4, height, width), np.float32),)
        (result,) = many.run(["y"], feed)
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, atol=1e-4)
    assert many.inputs == one.inputs
    many.close()


def test_a_session_refuses_every_shape_but_its_own(tmp_path: Path) -> None:
    # What makes a fault in the padding an error, instead of a slow answer on a GPU.
    from onnxruntime_backend.engines import BadRequestError, OnnxRuntimeEngine

    path = tiny_models.convolution(tmp_path / "model.onnx")
    engine = OnnxRuntimeEngine(path, Settings(intra_op_threads=1), {"n": 2, "h": 8, "w": 8})
    assert engine.run(["y"], {"x": items(2, 8, 8)})[0].shape == (2, 4, 8, 8)
    for count, height in ((1, 8), (2, 16)):
        with pytest.raises(BadRequestError):
            engine.run(["y"], {"x": items(count, height, 8)})


def test_a_session_of_openvino_is_compiled_for_its_own_shape(tmp_path: Path) -> None:
    from onnxruntime_backend.openvino_engine import OpenVinoEngine

    path = tiny_models.convolution(tmp_path / "model.onnx")
    engine = OpenVinoEngine(path, Settings(engine="openvino", intra_op_threads=1), (2, 3, 8, 8))
    assert [tensor.shape for tensor in engine.inputs + engine.outputs] == [(2, 3, 8, 8), (2, 4, 8, 8)]
    assert engine.run(["y"], {"x": items(2, 8, 8)})[0].shape == (2, 4, 8, 8)
    with pytest.raises(RuntimeError):
        engine.run(["y"], {"x": items(1, 8, 8)})


def test_weights_beside_the_model_do_not_stay_in_the_memory_of_openvino(tmp_path: Path) -> None:
    width = 1024  # two layers of 4 MiB
    path = tiny_models.two_layers(tmp_path / "model.onnx", external_data=True, width=width)
    value = np.random.default_rng(0).random((3, width), np.float32)
    (expected,) = load_engine(path, Settings(intra_op_threads=1)).run(["y"], {"x": value})
    engine = load_engine(path, settings((1, width), engine="openvino"))
    try:
        held = _held(tmp_path)
        assert held
        assert sum(held) < 100
        np.testing.assert_allclose(engine.run(["y"], {"x": value})[0], expected, atol=1e-5)
    finally:
        engine.close()


def _held(folder: Path) -> list[int]:
    """Return the KiB that each mapping of a file in *folder* holds in memory."""
    found = []
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            found.append(int(line.split()[1]))
    return found


def test_joined_requests_get_their_own_rows_out_of_a_padded_batch(tmp_path: Path) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    engine = load_engine(path, settings((8, 3, 8, 8)))
    values = [items(count, 8, 8) for count in (1, 3, 2)]
    results = run_batch(engine, [Job({"x": value}, ["y"]) for value in values], batched=True)
    reference = load_engine(path, Settings(intra_op_threads=1))
    for value, result in zip(values, results, strict=True):
        assert isinstance(result, dict)
        np.testing.assert_allclose(result["y"], reference.run(["y"], {"x": value})[0], atol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        (((1, 4, 8, 8),), r"names 1x4x8x8, but the model's input 'x' takes \[-1, 3, -1, -1\]"),
        (((1, 3, 8),), "names 1x3x8"),
    ],
)
def test_shapes_that_the_model_does_not_take_are_refused(tmp_path: Path, shapes: tuple[Shape, ...], why: str) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=why):
        load_engine(path, settings(*shapes))


def test_strings_cannot_be_padded(tmp_path: Path) -> None:
    path = tiny_models.identity(tmp_path / "model.onnx", tiny_models.STRING, ("n", 2))
    with pytest.raises(ConfigError, match=r"for models with one input of numbers; this one has 'x' \(TYPE_STRING\)"):
        load_engine(path, settings((1, 2)))


def test_an_arena_that_cannot_be_shared_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(arena, "_register", fail)
    monkeypatch.setattr(arena, "_registered", set())
    told: list[str] = []
    path = tiny_models.convolution(tmp_path / "model.onnx")
    engine = load_engine(path, settings((1, 3, 8, 8)), warn=told.append)
    assert engine.run(["y"], {"x": items(1, 8, 8)})[0].shape == (1, 4, 8, 8)
    assert len(told) == 1
    assert "no such device" in told[0]
    load_engine(path, settings((1, 3, 8, 8), shared_arena=False), warn=pytest.fail)


def test_an_arena_is_registered_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int | None] = []
    monkeypatch.setattr(arena, "_register", lambda _runtime, settings: calls.append(settings.device_id))
    monkeypatch.setattr(arena, "_registered", set())
    for device in (0, 0, 1):
        shared = arena.share(Settings(device_id=device), pytest.fail)
        assert shared.session_entries == {"session.use_env_allocators": "1"}
    assert calls == [0, 1]
