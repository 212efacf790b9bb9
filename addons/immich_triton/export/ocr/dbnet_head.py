"""The head of a DBNet, rewritten to do the same at a quarter of the width and height.

PP-OCR's detectors end in two transposed convolutions of kernel 2 and stride 2, each of which doubles width and height,
and a sigmoid over the full page. Kernels that do not overlap make every pixel of the quarter-size map responsible for
its own 4x4 block alone: the whole head is a chain of 1x1 convolutions, and a rearrangement of 16 channels into blocks
at the end. The result is the same up to rounding. It spares the maps of 24 channels at half size, and a sigmoid that
OpenVINO computes on 16 padded channels: together a fifth of the detector's time.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from immich_triton.export.ocr.graph import Graph, attribute
from immich_triton.export.onnx_graph import GraphError

Array = npt.NDArray[Any]

_BLOCK: Final = 4


def fold_head(model: onnx.ModelProto) -> None:
    """Replace everything behind the last map of quarter size. Raises `GraphError` when the head is not as described."""
    graph = Graph(model)
    end = model.graph.output[0].name
    # Backwards: sigmoid, second convolution, ReLU, first convolution; between them only what acts on single channels.
    sigmoid = graph.producer(end, "Sigmoid")
    second, scale2, shift2 = _convolution_before(graph, sigmoid.input[0])
    relu = graph.producer(second.input[0], "Relu")
    first, scale1, shift1 = _convolution_before(graph, relu.input[0])
    start = first.input[0]

    # Weights of a transposed convolution are [in, out, y, x].
    kernel1 = graph.constant(first.input[1]) * scale1[np.newaxis, :, np.newaxis, np.newaxis]
    kernel2 = graph.constant(second.input[1]) * scale2[np.newaxis, :, np.newaxis, np.newaxis]
    if kernel2.shape[1] != 1:
        raise GraphError(f"the detector's head gives {kernel2.shape[1]} maps instead of one")
    channels = kernel1.shape[1]
    # The 2x2 pixels that the first convolution makes of one become 4 groups of channels: (y, x, channel).
    weights1 = kernel1.transpose(2, 3, 1, 0).reshape(4 * channels, -1, 1, 1)
    weights2 = np.zeros((_BLOCK, _BLOCK, 2, 2, channels), np.float32)
    for y in range(_BLOCK):
        for x in range(_BLOCK):
            weights2[y, x, y // 2, x // 2] = kernel2[:, 0, y % 2, x % 2]
    constants = {
        "head_weights1": weights1,
        "head_bias1": np.tile(shift1, 4),
        "head_weights2": weights2.reshape(_BLOCK * _BLOCK, 4 * channels, 1, 1),
        "head_bias2": np.repeat(shift2, _BLOCK * _BLOCK),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in constants.items()
    )
    graph.remove_between(start, end)
    # A block has one channel, with which both modes are the same; OpenVINO takes a quarter less time for this one.
    model.graph.node.extend(
        [
            helper.make_node("Conv", [start, "head_weights1", "head_bias1"], ["head_1"], kernel_shape=[1, 1]),
            helper.make_node("Relu", ["head_1"], ["head_relu"]),
            helper.make_node("Conv", ["head_relu", "head_weights2", "head_bias2"], ["head_2"], kernel_shape=[1, 1]),
            helper.make_node("Sigmoid", ["head_2"], ["head_sigmoid"]),
            helper.make_node("DepthToSpace", ["head_sigmoid"], [end], blocksize=_BLOCK, mode="CRD"),
        ]
    )
    graph.remove_unused()


def _convolution_before(graph: Graph, value: str) -> tuple[onnx.NodeProto, Array, Array]:
    """Return the transposed convolution that *value* comes from, and scale and shift per channel since."""
    scale: Array = np.ones(1, np.float32)
    shift: Array = np.zeros(1, np.float32)
    while True:
        node = graph.find(value)
        if node is None:
            raise GraphError("the detector's head has nothing where a convolution belongs")
        if node.op_type == "ConvTranspose":
            break
        if node.op_type == "Add":
            value, constant = node.input
            shift = shift + scale * graph.constant(constant).reshape(-1)
        elif node.op_type == "BatchNormalization":
            gamma, beta, mean, variance = (graph.constant(name) for name in node.input[1:5])
            factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
            value, shift, scale = node.input[0], shift + scale * (beta - mean * factor), scale * factor
        else:
            raise GraphError(f"the detector's head has {node.op_type} where a convolution belongs")
    if list(attribute(node, "kernel_shape", [])) != [2, 2] or list(attribute(node, "strides", [])) != [2, 2]:
        raise GraphError("the detector's head does not double width and height by 2x2 kernels")
    channels = graph.constant(node.input[1]).shape[1]
    if len(node.input) > 2:
        shift = shift + scale * graph.constant(node.input[2])
    return node, np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)
