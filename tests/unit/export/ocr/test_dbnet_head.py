"""The head of a DBNet does the same at a quarter of the width and height."""

from __future__ import annotations

import importlib

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_ocr import detector, head

from immich_triton.export import onnx_graph
from immich_triton.export.ocr import dbnet_head


def evaluate(model: onnx.ModelProto, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": image})[0])


def test_the_folded_head_equals_two_transposed_convolutions() -> None:
    model = head(kernel=2)
    image = np.random.default_rng(1).standard_normal((2, 5, 3, 4)).astype(np.float32)
    expected = evaluate(model, image)
    assert expected.shape == (2, 1, 12, 16)
    dbnet_head.fold_head(model)
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "Sigmoid", "DepthToSpace"}
    assert np.abs(evaluate(model, image) - expected).max() < 1e-6


def test_a_head_of_another_kind_is_refused() -> None:
    with pytest.raises(onnx_graph.GraphError, match="2x2"):
        dbnet_head.fold_head(head(kernel=4))


def test_a_whole_detector_keeps_what_is_before_its_head() -> None:
    model = detector()
    image = np.random.default_rng(2).uniform(-1, 1, (2, 3, 32, 64)).astype(np.float32)
    expected = evaluate(model, image)
    dbnet_head.fold_head(model)
    onnx.checker.check_model(model)
    assert "shrink" in {tensor.name for tensor in model.graph.initializer}
    assert "up" not in {tensor.name for tensor in model.graph.initializer}
    assert np.abs(evaluate(model, image) - expected).max() < 1e-6


def test_constants_may_hide_behind_nodes() -> None:
    """As exporters write them: a Constant, seen through an Identity, reshaped."""
    model, hidden = head(kernel=2), head(kernel=2)
    (bias,) = (tensor for tensor in hidden.graph.initializer if tensor.name == "b1")
    flat = numpy_helper.from_array(numpy_helper.to_array(bias).reshape(-1), "")
    hidden.graph.initializer.remove(bias)
    hidden.graph.initializer.append(numpy_helper.from_array(np.array([1, 6, 1, 1]), "shape"))
    nodes = (
        helper.make_node("Constant", [], ["flat"], value=flat),
        helper.make_node("Identity", ["flat"], ["seen"]),
        helper.make_node("Reshape", ["seen", "shape"], ["b1"]),
    )
    for position, node in enumerate(nodes):
        hidden.graph.node.insert(position, node)
    image = np.ones((1, 5, 2, 2), np.float32)
    dbnet_head.fold_head(hidden)
    assert np.abs(evaluate(hidden, image) - evaluate(model, image)).max() < 1e-6


@pytest.mark.parametrize(
    ("position", "operator", "why"),
    [
        (-1, "Relu", "has Relu where Sigmoid belongs"),
        (3, "Sigmoid", "has Sigmoid where Relu belongs"),
        (1, "Mul", "has Mul where a convolution belongs"),
    ],
)
def test_a_head_of_other_operators_is_refused(position: int, operator: str, why: str) -> None:
    model = head(kernel=2)
    model.graph.node[position].op_type = operator
    with pytest.raises(onnx_graph.GraphError, match=why):
        dbnet_head.fold_head(model)


def test_weights_that_are_computed_are_refused() -> None:
    model = head(kernel=2)
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "w1")
    model.graph.initializer.remove(weights)
    with pytest.raises(onnx_graph.GraphError, match="w1 in the network is not constant"):
        dbnet_head.fold_head(model)
