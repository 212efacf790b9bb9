"""A recogniser tells what greedy CTC decoding looks at."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_ocr import network

from immich_triton.export.ocr import ctc_head
from immich_triton.export.ocr.ctc_head import GROUP
from immich_triton.export.onnx_graph import GraphError

Array = npt.NDArray[Any]

CLASSES = GROUP + 3


def of_logits(classes: int = CLASSES, *, last: str = "Softmax", opset: int = 13) -> onnx.ModelProto:
    """Return a recogniser whose logits are its input."""
    nodes = [
        helper.make_node("MatMul", ["x", "same"], ["product"]),
        helper.make_node("Identity", ["product"], ["seen"]),
        helper.make_node("Add", ["none", "seen"], ["logits"]),
        helper.make_node(last, ["logits"], ["out"], axis=-1),
    ]
    constants = {"same": np.eye(classes, dtype=np.float32), "none": np.zeros(classes, np.float32)}
    model = network(nodes, constants, ["n", "t", classes], ["n", "t", classes])
    model.opset_import[0].version = opset
    return model


def run(model: onnx.ModelProto, logits: Array) -> list[Array]:
    onnx.checker.check_model(model)
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {"x": logits})]


@pytest.mark.parametrize("classes", [3, GROUP, CLASSES, 5 * GROUP])
def test_arg_max_and_maximum_are_those_of_all_classes(classes: int) -> None:
    model = of_logits(classes)
    logits = np.random.default_rng(0).normal(0, 3, (2, 50, classes)).astype(np.float32)
    (probabilities,) = run(model, logits)
    assert ctc_head.fold_ctc(model, "indices", "scores") == classes
    indices, scores = run(model, logits)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(indices, probabilities.argmax(axis=2))
    np.testing.assert_allclose(scores, probabilities.max(axis=2), rtol=1e-6)


def test_of_equals_the_first_is_taken_in_a_group_and_across() -> None:
    logits = np.zeros((1, 4, CLASSES), np.float32)
    logits[0, 1, [5, 7]] = 9
    logits[0, 2, [GROUP - 1, GROUP + 1]] = 9
    logits[0, 3, [GROUP, GROUP + 2]] = 9
    model = of_logits()
    ctc_head.fold_ctc(model, "indices", "scores")
    assert run(model, logits)[0].tolist() == [[0, 5, GROUP - 1, GROUP]]


def test_a_class_that_is_none_is_never_taken() -> None:
    model = of_logits()
    ctc_head.fold_ctc(model, "indices", "scores")
    logits = np.full((1, 2, CLASSES), -500, np.float32)
    indices, scores = run(model, logits)
    assert indices.tolist() == [[0, 0]]
    np.testing.assert_allclose(scores, 1 / CLASSES, rtol=1e-5)


def test_what_is_no_number_is_some_class() -> None:
    model = of_logits()
    ctc_head.fold_ctc(model, "indices", "scores")
    ctc_head.add_alternatives(model, "indices", "others", np.zeros((CLASSES, 1), np.int32))
    indices, *_ = run(model, np.full((1, 2, CLASSES), np.nan, np.float32))
    assert ((indices >= 0) & (indices < CLASSES)).all(), "or the look-up reads beside the table"


def test_alternatives_are_looked_up_by_the_class_of_each_step() -> None:
    model = of_logits(4)
    ctc_head.fold_ctc(model, "indices", "scores")
    ctc_head.add_alternatives(model, "indices", "others", np.array([[3, 0], [3, 2], [3, 1], [3, 0]], np.int32))
    assert [axis.dim_param or axis.dim_value for axis in model.graph.output[-1].type.tensor_type.shape.dim] == [
        "batch",
        "steps",
        2,
    ]
    probabilities = np.array([[[0.1, 0.5, 0.3, 0.1], [0.2, 0.1, 0.6, 0.1]]], np.float32)
    *_, others = run(model, np.log(probabilities))
    np.testing.assert_allclose(others, [[[0.1, 0.3], [0.1, 0.1]]], rtol=1e-5)


def test_what_is_not_written_for_is_refused() -> None:
    with pytest.raises(GraphError, match="opset 18"):
        ctc_head.fold_ctc(of_logits(opset=18), "indices", "scores")
    with pytest.raises(GraphError, match="has LogSoftmax where Softmax belongs"):
        ctc_head.fold_ctc(of_logits(last="LogSoftmax"), "indices", "scores")
    model = of_logits()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", "t", "c"]))
    with pytest.raises(GraphError, match="last axis of out is not fixed"):
        ctc_head.fold_ctc(model, "indices", "scores")
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, None))
    with pytest.raises(GraphError, match=r"one output, it has \['out', 'logits'\]"):
        ctc_head.fold_ctc(model, "indices", "scores")
