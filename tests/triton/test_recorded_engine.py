"""A session that keeps its places, as a recorded one must: on a CPU, where nothing is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from onnxruntime_backend.engines import OnnxRuntimeEngine, load_engine
from onnxruntime_backend.recorded_engine import RecordedEngine
from onnxruntime_backend.settings import ConfigError, Settings
from triton import tiny_models
from triton.tiny_models import Array

SHAPES = ((1, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 16))
RECORDED = Settings(intra_op_threads=1, shapes=SHAPES, cuda_graphs=True)


def items(count: int, height: int, width: int) -> Array:
    return np.random.default_rng(count).standard_normal((count, 3, height, width)).astype(np.float32)


def test_it_computes_what_any_session_does(tmp_path: Path) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    recorded, plain = load_engine(path, RECORDED, warn=pytest.fail), load_engine(path, Settings(intra_op_threads=1))
    for count, width in ((1, 8), (3, 8), (4, 8), (9, 8), (2, 16)):
        feed = {"x": items(count, 8, width)}
        np.testing.assert_allclose(recorded.run(["y"], feed)[0], plain.run(["y"], feed)[0], atol=1e-5)
    recorded.close()


def test_an_answer_is_not_overwritten_by_the_next(tmp_path: Path) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    engine = RecordedEngine(path, Settings(intra_op_threads=1), {"n": 1, "h": 8, "w": 8}, (1, 3, 8, 8))
    (first,) = engine.run(["y"], {"x": items(1, 8, 8)})
    before = first.copy()
    (second,) = engine.run(["y"], {"x": items(1, 8, 8) + 1})
    np.testing.assert_array_equal(first, before)
    assert np.abs(second - first).max() > 0.1


def test_it_has_one_place_for_its_input_and_takes_nothing_else(tmp_path: Path) -> None:
    path = tiny_models.convolution(tmp_path / "model.onnx")
    engine = RecordedEngine(path, Settings(intra_op_threads=1), {"n": 2, "h": 8, "w": 8}, (2, 3, 8, 8))
    with pytest.raises(RuntimeError):
        engine.run(["y"], {"x": items(3, 8, 8)})


def numbers_that_are_not_zero(path: Path) -> Path:
    """Write a model whose output is as long as its values say."""
    nodes = [helper.make_node("NonZero", ["x"], ["at"]), helper.make_node("Transpose", ["at"], ["y"])]
    return tiny_models.save(path, nodes, {"x": (tiny_models.FLOAT, ("n", 4))}, {"y": (tiny_models.INT64, ("found", 2))})


def test_an_output_of_any_size_has_no_place(tmp_path: Path) -> None:
    path = numbers_that_are_not_zero(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="the size of 'y' does not follow from that of the input"):
        RecordedEngine(path, Settings(intra_op_threads=1), {"n": 1}, (1, 4))


def test_what_cannot_be_recorded_is_a_warning_and_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_engine: RecordedEngine, _outputs: Sequence[str], _feed: Mapping[str, Array]) -> list[Array]:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(RecordedEngine, "run", refuse)
    told: list[str] = []
    path = tiny_models.convolution(tmp_path / "model.onnx")
    engine = load_engine(path, RECORDED, warn=told.append)
    assert told == ["computes without CUDA graphs, more slowly: operation not permitted when stream is capturing"]
    feed = {"x": items(3, 8, 8)}
    expected = OnnxRuntimeEngine(path, Settings(intra_op_threads=1)).run(["y"], feed)
    np.testing.assert_allclose(engine.run(["y"], feed)[0], expected[0], atol=1e-5)
