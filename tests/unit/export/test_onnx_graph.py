"""Surgery on ONNX graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from tiny_ocr import recognizer

from immich_triton.export import onnx_graph
from immich_triton.export.onnx_graph import GraphError


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_a_folded_arg_max_takes_the_first_of_equals() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["p"], ["out"])],
        "ctc",
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [1, "t", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, "t", 4])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    assert onnx_graph.fold_ctc(model, "indices", "scores") == 4
    probabilities = np.array([[[0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0]]], np.float32)
    indices, scores = np.array(ReferenceEvaluator(model).run(None, {"p": probabilities}))
    assert indices.tolist() == probabilities.argmax(axis=2).tolist() == [[1, 3, 0]]
    assert scores.tolist() == probabilities.max(axis=2).tolist()


def test_alternatives_are_looked_up_by_the_class_of_each_step() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "t", 4]) for name in ("p", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["p"], ["out"])], "ctc", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx_graph.fold_ctc(model, "indices", "scores")
    onnx_graph.add_alternatives(model, "indices", "others", np.array([[3, 0], [3, 2], [3, 1], [3, 0]], np.int32))
    onnx.checker.check_model(model)
    assert shape_of(model.graph.output[-1]) == ["batch", "steps", 2]
    probabilities = np.array([[[0.1, 0.5, 0.3, 0.1], [0.2, 0.1, 0.6, 0.1]]], np.float32)
    (others,) = ReferenceEvaluator(model).run(["others"], {"p": probabilities})
    np.testing.assert_array_equal(others, np.array([[[0.1, 0.3], [0.1, 0.1]]], np.float32))


@pytest.mark.parametrize(("opset", "classes", "why"), [(18, 4, "opset 18"), (13, "c", "last axis of out is not fixed")])
def test_what_is_not_written_for_is_refused(opset: int, classes: int | str, why: str) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "t", classes]) for name in ("p", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["p"], ["out"])], "ctc", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    with pytest.raises(GraphError, match=why):
        onnx_graph.fold_ctc(model, "indices", "scores")


def test_names_and_axes_are_given() -> None:
    model = recognizer()
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 48, 16)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    onnx_graph.rename_input(model, "lines", ["batch", 3, 48, "width"])
    onnx_graph.rename_output(model, "classes", ["batch", "steps", 3])
    onnx.checker.check_model(model)
    assert (model.graph.input[0].name, shape_of(model.graph.input[0])) == ("lines", ["batch", 3, 48, "width"])
    assert (model.graph.output[0].name, shape_of(model.graph.output[0])) == ("classes", ["batch", "steps", 3])
    (found,) = ReferenceEvaluator(model).run(["classes"], {"lines": x})
    assert np.array_equal(found, expected)


def test_a_weight_that_is_also_an_input_is_none() -> None:
    model = recognizer()
    model.graph.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [3]))
    onnx_graph.rename_input(model, "lines", ["n", 3, 48, "w"])
    model.graph.input.append(helper.make_tensor_value_info("another", TensorProto.FLOAT, [3]))
    with pytest.raises(GraphError, match=r"one input, it has \['lines', 'another'\]"):
        onnx_graph.rename_input(model, "x", [1])


def test_two_outputs_are_not_one() -> None:
    model = recognizer()
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, None))
    for surgery in (
        lambda: onnx_graph.rename_output(model, "y", [1]),
        lambda: onnx_graph.fold_ctc(model, "indices", "scores"),
    ):
        with pytest.raises(GraphError, match=r"one output, it has \['out', 'logits'\]"):
            surgery()


def test_metadata_is_a_map() -> None:
    model = recognizer()
    assert onnx_graph.metadata(model) == {}
    for key, value in (("character", "a\nb"), ("other", "1"), ("character", "c")):
        onnx_graph.set_metadata(model, key, value)
    assert onnx_graph.metadata(model) == {"character": "c", "other": "1"}
