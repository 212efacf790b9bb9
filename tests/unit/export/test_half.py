"""Half precision: float16 inside, float32 at both ends, nearly the same numbers; and what a GPU would make of them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_ocr import recognizer

from immich_triton.export import onnx_graph
from immich_triton.export.half import halve
from immich_triton.export.sessions import cpu_session
from ocr_eval.half import rounded


def product(factor: float) -> onnx.ModelProto:
    """Return y = (x * factor) / factor, of one row of four."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["large"]), helper.make_node("Div", ["large", "factor"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.array(factor, np.float32), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_weights_are_halved_and_both_ends_are_not() -> None:
    model = recognizer()
    onnx_graph.set_metadata(model, "character", "i")
    halved = halve(model)
    onnx.checker.check_model(halved)
    assert {value.type.tensor_type.elem_type for value in (*halved.graph.input, *halved.graph.output)} == {
        TensorProto.FLOAT
    }
    kinds = {tensor.data_type for tensor in halved.graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.FLOAT not in kinds
    assert onnx_graph.metadata(halved) == {"character": "i"}


def test_half_of_a_network_computes_nearly_the_same() -> None:
    line = np.random.default_rng(0).uniform(-1, 1, (1, 3, 48, 64)).astype(np.float32)
    (expected,) = cpu_session(recognizer().SerializeToString()).run(None, {"x": line})
    (found,) = cpu_session(halve(recognizer()).SerializeToString()).run(None, {"x": line})
    (as_on_a_gpu,) = cpu_session(rounded(recognizer()).SerializeToString()).run(None, {"x": line})
    for ours in (found, as_on_a_gpu):
        assert 0 < np.abs(ours - expected).max() < 2e-2


@pytest.mark.parametrize(("factor", "finite"), [(1000.0, True), (30_000.0, False)])
def test_what_is_too_large_for_a_gpu_is_infinite(factor: float, finite: bool) -> None:
    # A CPU computes in float32 and would not notice; a network that does this finds nothing on a GPU.
    row = np.array([[1.0, 2.0, 3.0, 0.1]], np.float32)
    session = _plain(rounded(product(factor)))
    (found,) = session.run(None, {"x": row})
    assert bool(np.isfinite(found).all()) == finite
    np.testing.assert_allclose(found[0, :2], [1, 2], rtol=2e-3)


def _plain(model: onnx.ModelProto) -> Any:

    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
