"""The gates of a network ("squeeze and excite"), in operators that an engine computes with the convolution before.

A gate is a number for each channel, a HardSigmoid of what a 1x1 convolution makes of the channels' means. OpenVINO runs
that as a node of its own, one number at a time and channels first, so that what it sees and gives is turned around as
well. Of a product, a sum and a clip it puts the first two into the convolution's weights, and computes the third with
it: three nodes less for each gate, each of which costs time whenever the shape changes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import helper

from immich_triton.export.ocr.graph import Graph, attribute
from immich_triton.export.onnx_graph import opset_of, sort

_CLIP_WITH_INPUTS: Final = 11
"""The first opset in which the bounds of a Clip are inputs."""


def spell_out_gates(model: onnx.ModelProto) -> int:
    """Replace each HardSigmoid of *model* by Clip(alpha x + beta, 0, 1), and return how many there were.

    Below opset 11 none is. The result is the same.
    """
    if opset_of(model) < _CLIP_WITH_INPUTS:
        return 0
    graph = Graph(model)
    found = [node for node in model.graph.node if node.op_type == "HardSigmoid"]
    bounds = [graph.add_constant(f"gate_{key}", np.float32(value)) for key, value in (("least", 0), ("most", 1))]
    for number, gate in enumerate(found):
        name = f"gate_{number}"
        alpha = graph.add_constant(f"{name}_alpha", np.float32(attribute(gate, "alpha", 0.2)))
        beta = graph.add_constant(f"{name}_beta", np.float32(attribute(gate, "beta", 0.5)))
        product = graph.add("Mul", [gate.input[0], alpha], f"{name}_product")
        total = graph.add("Add", [product, beta], f"{name}_sum")
        gate.CopyFrom(helper.make_node("Clip", [total, *bounds], [gate.output[0]], name=gate.name))
    graph.remove_unused()
    sort(model.graph)
    return len(found)
