"""The gates of a network ("squeeze and excite"), rewritten so that a convolution does all of them but the product.

A gate is a number for each channel: clip(a y + b, 0, 1) of what a 1x1 convolution y makes of the channels' means, which
is a HardSigmoid. OpenVINO runs that as a node of its own, one number at a time and channels first, so that what it sees
and gives is turned around as well. With a and b in the convolution's weights only the clip is left, which OpenVINO and
ONNX Runtime compute with the convolution: three nodes less for each gate, each of which costs time whenever the shape
changes. The result is the same up to rounding.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from immich_triton.export.ocr.graph import Graph, attribute
from immich_triton.export.onnx_graph import opset_of

_CLIP_WITH_INPUTS: Final = 11
"""The first opset in which the bounds of a Clip are inputs."""


def fold_gates(model: onnx.ModelProto) -> int:
    """Rewrite the gates of *model* in place, and return how many there were.

    A HardSigmoid stays where no convolution with constant weights and a constant bias is before it, or where somebody
    else looks at what that gives.
    """
    if opset_of(model) < _CLIP_WITH_INPUTS:
        return 0
    graph = Graph(model)
    bounds = [graph.add_constant(f"gate_{key}", np.float32(value)) for key, value in (("least", 0), ("most", 1))]
    folded = sum(
        _fold(graph, node, bounds, f"gate_{number}")
        for number, node in enumerate(model.graph.node)
        if node.op_type == "HardSigmoid"
    )
    graph.remove_unused()
    return folded


def _fold(graph: Graph, gate: onnx.NodeProto, bounds: list[str], name: str) -> bool:
    bias = graph.find(gate.input[0])
    if bias is None or bias.op_type != "Add" or not graph.is_constant(bias.input[1]):
        return False
    convolution = graph.find(bias.input[0])
    if convolution is None or convolution.op_type != "Conv" or len(convolution.input) != 2:
        return False
    if not graph.is_constant(convolution.input[1]) or not (_only(graph, convolution) and _only(graph, bias)):
        return False
    alpha, beta = attribute(gate, "alpha", 0.2), attribute(gate, "beta", 0.5)
    weights = graph.constant(convolution.input[1]) * np.float32(alpha)
    shift = graph.constant(bias.input[1]) * np.float32(alpha) + np.float32(beta)
    convolution.input[1] = graph.add_constant(f"{name}_weights", weights)
    bias.input[1] = graph.add_constant(f"{name}_bias", shift)
    gate.op_type = "Clip"
    gate.input.extend(bounds)
    del gate.attribute[:]
    return True


def _only(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether one node alone takes what *node* gives, identities left aside."""
    value = node.output[0]
    while len(takers := graph.takers(value)) == 1 and takers[0].op_type == "Identity":
        value = takers[0].output[0]
    return len(takers) == 1
