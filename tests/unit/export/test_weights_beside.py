"""Weights move into a file beside their model, which names it, and stay the same numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from immich_pipelines.onnx_metadata import WEIGHTS_FILE, metadata_props
from immich_triton.export.weights_beside import data_of, put_beside, size_of

WEIGHTS = np.arange(32 * 32, dtype=np.float32).reshape(32, 32)


def write(path: Path, weights: np.ndarray[tuple[int, int], np.dtype[np.float32]] = WEIGHTS) -> Path:
    size = len(weights)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "character", "一\n二"
    onnx.save_model(model, path)
    return path


def test_weights_move_out_and_are_the_same(tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    inside = size_of(model)
    put_beside(model)
    data = data_of(model)
    assert data.read_bytes() == WEIGHTS.tobytes()
    assert model.stat().st_size < WEIGHTS.nbytes < size_of(model) < inside + 1000
    assert metadata_props(model) == {
        "character": "一\n二",
        WEIGHTS_FILE: hashlib.sha256(WEIGHTS.tobytes()).hexdigest(),
    }
    (tensor,) = onnx.load(model).graph.initializer
    assert np.array_equal(numpy_helper.to_array(tensor), WEIGHTS)


def test_whoever_reads_the_model_reads_its_weights(tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    model.chmod(0o644)
    put_beside(model)
    assert data_of(model).stat().st_mode == model.stat().st_mode


def test_once_more_changes_nothing(tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    put_beside(model)
    before = [path.read_bytes() for path in (model, data_of(model))]
    put_beside(model)
    assert [path.read_bytes() for path in (model, data_of(model))] == before


def test_a_model_without_weights_worth_a_file_keeps_them(tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx", np.ones((2, 2), np.float32))
    put_beside(model)
    assert not data_of(model).exists()
    assert metadata_props(model) == {"character": "一\n二"}
    (tensor,) = onnx.load(model).graph.initializer
    assert np.array_equal(numpy_helper.to_array(tensor), np.ones((2, 2)))
