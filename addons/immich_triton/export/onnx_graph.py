"""Surgery on ONNX graphs in memory: names and dynamic axes, a folded CTC decoder, metadata."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

INT32 = TensorProto.INT32
FLOAT = TensorProto.FLOAT


class GraphError(ValueError):
    """The graph is not what the surgery expects."""


def rename_input(model: onnx.ModelProto, name: str, shape: Sequence[int | str]) -> None:
    """Name the only input *name* and declare its *shape*; strings are dynamic axes."""
    inputs = [value for value in model.graph.input if value.name not in _initializers(model)]
    if len(inputs) != 1:
        raise GraphError(f"the graph must have one input, it has {[value.name for value in inputs]}")
    old = inputs[0].name
    for node in model.graph.node:
        node.input[:] = [name if value == old else value for value in node.input]
    inputs[0].CopyFrom(helper.make_tensor_value_info(name, FLOAT, shape))


def rename_output(model: onnx.ModelProto, name: str, shape: Sequence[int | str]) -> None:
    """Name the only output *name* and declare its *shape*."""
    old = _only_output(model)
    for node in model.graph.node:
        node.input[:] = [name if value == old else value for value in node.input]
        node.output[:] = [name if value == old else value for value in node.output]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, FLOAT, shape))


def classes_of(model: onnx.ModelProto) -> int:
    """Return the size of the last axis of the only output. Raises `GraphError` where it is not fixed."""
    probabilities = _only_output(model)
    classes = int(model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value)
    if not classes:
        raise GraphError(f"the size of the last axis of {probabilities} is not fixed")
    return classes


def fold_ctc(model: onnx.ModelProto, indices: str, scores: str) -> int:
    """Replace the only output, probabilities [N, T, C], by their arg-max and maximum; return C.

    The outputs are *indices* int32 [N, T] and *scores* float32 [N, T]: what greedy CTC decoding looks at, without
    C = 6,625 to 18,710 floats for each of the T steps on their way through memory. Both are taken from the softmax
    itself and not from its logits: rounding to 1.0 makes ties there, and arg-max has to break them as before.

    The arg-max is written as "the smallest index that equals the maximum". As an ``ArgMax`` node, which OpenVINO runs
    as a top-k, it took a quarter of the whole recogniser's time; like this it is a fiftieth.
    """
    probabilities, classes = _only_output(model), classes_of(model)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= 18:
        raise GraphError(f"opset {opset} takes the axes of a reduction as an input, which is not written here")
    constants = {"classes": np.arange(classes, dtype=np.int32), "none": np.array(classes, dtype=np.int32)}
    model.graph.initializer.extend(numpy_helper.from_array(value, f"ctc_{key}") for key, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", [probabilities], ["ctc_maximum"], axes=[2], keepdims=1),
            helper.make_node("Equal", [probabilities, "ctc_maximum"], ["ctc_equal"]),
            helper.make_node("Where", ["ctc_equal", "ctc_classes", "ctc_none"], ["ctc_candidates"]),
            helper.make_node("ReduceMin", ["ctc_candidates"], [indices], axes=[2], keepdims=0),
            helper.make_node("ReduceMax", [probabilities], [scores], axes=[2], keepdims=0),
        ]
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(indices, INT32, ["batch", "steps"]))
    model.graph.output.append(helper.make_tensor_value_info(scores, FLOAT, ["batch", "steps"]))
    return classes


def add_alternatives(model: onnx.ModelProto, indices: str, name: str, table: npt.NDArray[np.int32]) -> None:
    """Add the output *name*, float32 [N, T, K]: how likely other classes are at a step.

    *table* [C, K] names those for each class that *indices*, the output of `fold_ctc`, may hold. Two look-ups in what
    the graph has anyway: the probabilities themselves never leave it.
    """
    (probabilities,) = (node.input[0] for node in model.graph.node if "ctc_maximum" in node.output)
    model.graph.initializer.append(numpy_helper.from_array(table.astype(np.int32), "ctc_table"))
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["ctc_table", indices], ["ctc_others"], axis=0),
            helper.make_node("GatherElements", [probabilities, "ctc_others"], [name], axis=2),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, ["batch", "steps", table.shape[1]]))


def set_metadata(model: onnx.ModelProto, key: str, value: str) -> None:
    """Set one entry of the custom metadata map."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    for name, text in [*kept, (key, value)]:
        model.metadata_props.add(key=name, value=text)


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the custom metadata map."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _only_output(model: onnx.ModelProto) -> str:
    if len(model.graph.output) != 1:
        raise GraphError(f"the graph must have one output, it has {[value.name for value in model.graph.output]}")
    return str(model.graph.output[0].name)


def _initializers(model: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}
