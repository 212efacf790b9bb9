"""OCR networks of a few weights in the shape of PP-OCR's, for tests of what the export does to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

CHARACTERS = ("blank", "i", " ")
"""What `recognizer` tells apart: nothing, a stroke, and what it never sees."""

Array = npt.NDArray[Any]


def network(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], given: list[int | str], result: list[int | str]
) -> onnx.ModelProto:
    """Return a model that makes ``out`` of shape *result* from ``x`` of shape *given*."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def head(kernel: int) -> onnx.ModelProto:
    """Return a head with random weights: a batch norm behind the first convolution, a plain bias behind the second."""
    random = np.random.default_rng(0)
    constants = {
        "w1": random.standard_normal((5, 6, kernel, kernel)),
        "b1": random.standard_normal((1, 6, 1, 1)),
        "gamma": random.standard_normal(6),
        "beta": random.standard_normal(6),
        "mean": random.standard_normal(6),
        "variance": random.uniform(0.5, 2, 6),
        "w2": random.standard_normal((6, 1, kernel, kernel)),
        "b2": random.standard_normal(1),
    }
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w1"], ["up1"], kernel_shape=[kernel, kernel], strides=[2, 2]),
        helper.make_node("Add", ["up1", "b1"], ["added"]),
        helper.make_node("BatchNormalization", ["added", "gamma", "beta", "mean", "variance"], ["normed"]),
        helper.make_node("Relu", ["normed"], ["relu"]),
        helper.make_node("ConvTranspose", ["relu", "w2", "b2"], ["up2"], kernel_shape=[kernel, kernel], strides=[2, 2]),
        helper.make_node("Sigmoid", ["up2"], ["out"]),
    ]
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    return network(nodes, constants, ["n", 5, "h", "w"], ["n", 1, "h2", "w2"])


def detector() -> onnx.ModelProto:
    """Return a text detector that takes dark for text: a backbone of one convolution, and a head that repeats it."""
    one = np.ones((1, 1, 2, 2), np.float32)
    constants: dict[str, Array] = {
        # -1 (black) gives 8, 1 (white) gives -8, averaged over blocks of 4x4 and three channels.
        "shrink": np.full((1, 3, 4, 4), -8 / 48, np.float32),
        "up": one,
        "lift": np.full((1, 1, 1, 1), 8, np.float32),
        "drop": np.full((1, 1, 1, 1), -8, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "shrink"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("ConvTranspose", ["small", "up"], ["up1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["up1", "lift"], ["lifted"]),
        helper.make_node("Relu", ["lifted"], ["relu"]),
        helper.make_node("ConvTranspose", ["relu", "up"], ["up2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["up2", "drop"], ["dropped"]),
        helper.make_node("Sigmoid", ["dropped"], ["out"]),
    ]
    return network(nodes, constants, ["n", 3, "h", "w"], ["n", 1, "h", "w"])


def recognizer() -> onnx.ModelProto:
    """Return a recogniser that reads an ``i`` where eight columns of pixels hold something dark."""
    constants: dict[str, Array] = {
        "weights": np.array([[0, -20, -20]] * 3, np.float32) / 3,
        "bias": np.array([0, 17, -60], np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["x"], ["columns"], kernel_shape=[48, 8], strides=[48, 8]),
        helper.make_node("Constant", [], ["height"], value=numpy_helper.from_array(np.array([2]), "")),
        helper.make_node("Squeeze", ["columns", "height"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["steps"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["steps", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["out"], axis=2),
    ]
    return network(nodes, constants, ["n", 3, 48, "w"], ["n", "t", len(CHARACTERS)])
