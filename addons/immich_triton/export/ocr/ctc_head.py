"""The end of a CTC recogniser, rewritten to tell what decoding looks at, and not the probabilities of all classes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from immich_triton.export.ocr.graph import Graph
from immich_triton.export.onnx_graph import classes_of, only_output, require_axes_as_attributes

Array = npt.NDArray[Any]

GROUP: Final = 128
"""How many classes are looked at together."""

_NEVER: Final = -1e4
"""The logit of a class that is none; half precision holds it too."""


def fold_ctc(model: onnx.ModelProto, indices: str, scores: str) -> int:
    """Replace the only output, probabilities [N, T, C], by their arg-max and maximum; return C.

    The outputs are *indices* int32 [N, T] and *scores* float32 [N, T]: what greedy CTC decoding looks at, without
    C = 6,625 to 18,710 floats for each of the T steps on their way through memory. Both are taken from the softmax
    itself and not from its logits: rounding to 1.0 makes ties there, and arg-max has to break them as before.

    The arg-max is the first class that equals the maximum, looked for in the first group of classes that holds it. As
    an ``ArgMax`` node, which OpenVINO runs as a top-k, it took a quarter of the whole recogniser's time, and without
    groups 4 %. For groups of one size there are more classes before the softmax than C, which are never likely.
    Raises `GraphError` where the network does not end as described.
    """
    classes, probabilities = classes_of(model), only_output(model)
    require_axes_as_attributes(model)
    graph = Graph(model)
    groups = -(-classes // GROUP)
    _widen(graph, graph.producer(probabilities, "Softmax").input[0], groups * GROUP - classes)

    first = graph.add_constant("ctc_first", np.arange(groups, dtype=np.int32) * GROUP)
    places = graph.add_constant("ctc_places", np.arange(GROUP, dtype=np.int32))
    # Where nothing equals the maximum, since it is no number.
    last_group = graph.add_constant("ctc_last_group", np.int32((groups - 1) * GROUP))
    last = graph.add_constant("ctc_last", np.int32(classes - 1))
    shape = graph.add_constant("ctc_shape", np.array([0, 0, groups, GROUP]))
    graph.add("Reshape", [probabilities, shape], "ctc_groups")
    graph.add("ReduceMax", ["ctc_groups"], "ctc_maxima", axes=[3], keepdims=0)
    graph.add("ReduceMax", ["ctc_maxima"], "ctc_maximum", axes=[2], keepdims=1)
    graph.add("Equal", ["ctc_maxima", "ctc_maximum"], "ctc_is_there")
    graph.add("Where", ["ctc_is_there", first, last_group], "ctc_begins")
    graph.add("ReduceMin", ["ctc_begins"], "ctc_begin", axes=[2], keepdims=1)
    graph.add("Add", ["ctc_begin", places], "ctc_members")
    graph.add("GatherElements", [probabilities, "ctc_members"], "ctc_group", axis=2)
    graph.add("Equal", ["ctc_group", "ctc_maximum"], "ctc_is_it")
    graph.add("Where", ["ctc_is_it", "ctc_members", last], "ctc_candidates")
    graph.add("ReduceMin", ["ctc_candidates"], indices, axes=[2], keepdims=0)
    # Not a second ReduceMax, which OpenVINO would join with the first: one more pass over all classes.
    graph.add("Reshape", ["ctc_maximum", graph.add_constant("ctc_steps", np.array([0, 0]))], scores)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(indices, TensorProto.INT32, ["batch", "steps"]))
    model.graph.output.append(helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["batch", "steps"]))
    graph.remove_unused()
    return classes


def add_alternatives(model: onnx.ModelProto, indices: str, name: str, table: npt.NDArray[np.int32]) -> None:
    """Add the output *name*, float32 [N, T, K]: how likely other classes are at a step.

    *table* [C, K] names those for each class that *indices*, the output of `fold_ctc`, may hold. Two look-ups in what
    the graph has anyway: the probabilities themselves never leave it.
    """
    graph = Graph(model)
    others = graph.add(
        "Gather", [graph.add_constant("ctc_table", table.astype(np.int32)), indices], "ctc_others", axis=0
    )
    graph.add("GatherElements", [graph.producer("ctc_groups", "Reshape").input[0], others], name, axis=2)
    model.graph.output.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "steps", table.shape[1]])
    )


def _widen(graph: Graph, logits: str, more: int) -> None:
    """Give the layer that *logits* come from *more* classes, of logits that no other is below."""
    bias = graph.producer(logits, "Add")
    weights = graph.producer(next(name for name in bias.input if not graph.is_constant(name)), "MatMul")
    for node, filler in ((weights, 0.0), (bias, _NEVER)):
        place = next(place for place, name in enumerate(node.input) if graph.is_constant(name))
        value = graph.constant(node.input[place])
        ends = [(0, 0)] * (value.ndim - 1) + [(0, more)]
        wider = np.pad(value, ends, constant_values=filler)
        node.input[place] = graph.add_constant("ctc_bias" if node is bias else "ctc_weights", wider)
