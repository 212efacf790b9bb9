"""A view of an ONNX graph that follows values backwards."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tiny_ocr import network

from immich_triton.export.ocr.graph import Graph, attribute
from immich_triton.export.onnx_graph import GraphError


def chain() -> Graph:
    """Return x → Relu → Identity → Conv → out, whose weights hide behind a Constant and an Identity."""
    weights = numpy_helper.from_array(np.full((1, 1, 1, 1), 2, np.float32), "")
    nodes = [
        helper.make_node("Constant", [], ["hidden"], value=weights),
        helper.make_node("Identity", ["hidden"], ["weights"]),
        helper.make_node("Relu", ["x"], ["relu"]),
        helper.make_node("Identity", ["relu"], ["same"]),
        helper.make_node("Conv", ["same", "weights"], ["out"], kernel_shape=[1, 1]),
    ]
    return Graph(network(nodes, {"unused": np.ones(1, np.float32)}, ["n", 1, "h", "w"], ["n", 1, "h", "w"]))


def test_nodes_are_found_through_identities() -> None:
    graph = chain()
    assert graph.producer("same", "Relu").input == ["x"]
    assert graph.behind_identities("same") == "relu"
    assert graph.find("x") is None
    with pytest.raises(GraphError, match="has Relu where Softmax belongs"):
        graph.producer("same", "Softmax")
    with pytest.raises(GraphError, match="has nothing where Relu belongs"):
        graph.producer("x", "Relu")


def test_constants_are_found_where_they_hide() -> None:
    graph = chain()
    assert graph.constant("weights").item() == 2
    assert graph.is_constant("unused")
    assert not graph.is_constant("same")
    with pytest.raises(GraphError, match="relu in the network is not constant"):
        graph.constant("same")


def test_what_is_added_and_removed_is_seen_at_once() -> None:
    graph = chain()
    convolution = graph.producer("out", "Conv")
    assert attribute(convolution, "kernel_shape", []) == [1, 1]
    assert attribute(convolution, "group", 1) == 1
    graph.remove(convolution)
    assert graph.find("out") is None
    graph.add("Mul", ["same", graph.add_constant("two", np.float32(2))], "out")
    assert graph.producer("out", "Mul").input == ["same", "two"]
    assert [node.op_type for node in graph.takers("same")] == ["Mul"]
    graph.remove_unused()
    assert graph.find("weights") is None, "nothing takes the weights any more"
