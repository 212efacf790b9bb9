"""What a network gives in half precision, computed on a CPU.

A CPU's ONNX Runtime drops most of the rounding of a float16 graph on the way: it computes in float32, and leaves out
the casts between two operators. So each result is rounded here by casts that it has to keep, those too large for
float16 become infinite as they do on a GPU, and the weights are rounded like them. A GPU adds up in float32 inside an
operator, as this does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

EXACT: Final = frozenset(
    {"Constant", "DepthToSpace", "Concat", "Gather", "Identity", "MaxPool", "Relu", "Reshape", "Shape", "Slice"}
    | {"Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that only pass on values, which are rounded already."""


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return *model* with weights and results rounded to float16. Run it without optimisations, which would undo it.

    *model* itself is used up.
    """
    graph = model.graph
    known = {
        value.name: value.type.tensor_type.elem_type for value in shape_inference.infer_shapes(model).graph.value_info
    }
    outputs = {output.name for output in graph.output}
    for tensor in [*graph.initializer, *(one.t for node in graph.node for one in node.attribute if one.HasField("t"))]:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for place, name in enumerate(node.output):
            if node.op_type in EXACT or name in outputs or known.get(name) != TensorProto.FLOAT:
                continue
            exact, half = f"{name}_exact", f"{name}_half"
            node.output[place] = exact
            nodes.append(helper.make_node("Cast", [exact], [half], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    return model
