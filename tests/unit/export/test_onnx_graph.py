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
    with pytest.raises(GraphError, match=r"one output, it has \['out', 'logits'\]"):
        onnx_graph.rename_output(model, "y", [1])


def test_nodes_stand_behind_those_that_they_take_from() -> None:
    model = recognizer()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    onnx_graph.sort(model.graph)
    onnx.checker.check_model(model)
    model.graph.node[-1].input[0] = "nothing"
    with pytest.raises(GraphError, match=r"node Softmax waits for what no node gives"):
        onnx_graph.sort(model.graph)


def test_metadata_is_a_map() -> None:
    model = recognizer()
    assert onnx_graph.metadata(model) == {}
    for key, value in (("character", "a\nb"), ("other", "1"), ("character", "c")):
        onnx_graph.set_metadata(model, key, value)
    assert onnx_graph.metadata(model) == {"character": "c", "other": "1"}
