"""Surgery on ONNX graphs in memory: names and dynamic axes, the order of nodes, metadata."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

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
    old = only_output(model)
    for node in model.graph.node:
        node.input[:] = [name if value == old else value for value in node.input]
        node.output[:] = [name if value == old else value for value in node.output]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, FLOAT, shape))


def classes_of(model: onnx.ModelProto) -> int:
    """Return the size of the last axis of the only output. Raises `GraphError` where it is not fixed."""
    probabilities = only_output(model)
    classes = int(model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value)
    if not classes:
        raise GraphError(f"the size of the last axis of {probabilities} is not fixed")
    return classes


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that *model* asks for."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def require_axes_as_attributes(model: onnx.ModelProto) -> None:
    """Raise `GraphError` where reductions take their axes as an input, which the surgery does not write."""
    if (opset := opset_of(model)) >= 18:
        raise GraphError(f"opset {opset} takes the axes of a reduction as an input, which is not written here")


def set_metadata(model: onnx.ModelProto, key: str, value: str) -> None:
    """Set one entry of the custom metadata map."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    for name, text in [*kept, (key, value)]:
        model.metadata_props.add(key=name, value=text)


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the custom metadata map."""
    return {entry.key: entry.value for entry in model.metadata_props}


def sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it takes from, as ONNX asks for. Raises `GraphError` where that cannot be."""
    known = {""} | {value.name for value in (*graph.input, *graph.initializer)}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise GraphError(f"node {waiting[0].name or waiting[0].op_type} waits for what no node gives")
        for node in ready:
            known.update(node.output)
        ordered += ready
        waiting = [node for node in waiting if not any(node is one for one in ready)]
    del graph.node[:]
    graph.node.extend(ordered)


def only_output(model: onnx.ModelProto) -> str:
    """Return the name of the only output. Raises `GraphError` where there are others."""
    if len(model.graph.output) != 1:
        raise GraphError(f"the graph must have one output, it has {[value.name for value in model.graph.output]}")
    return str(model.graph.output[0].name)


def _initializers(model: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}
