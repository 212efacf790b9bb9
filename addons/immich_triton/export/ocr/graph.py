"""A view of an ONNX graph that follows values backwards, and adds and removes nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from immich_triton.export.onnx_graph import GraphError

Array = npt.NDArray[Any]


class Graph:
    """The graph of *model*. Every change goes there at once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._producers = {output: node for node in model.graph.node for output in node.output}
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def find(self, value: str) -> onnx.NodeProto | None:
        """Return the node that gives *value*, seen through identities; None for an input and a constant."""
        return self._producers.get(self.behind_identities(value))

    def producer(self, value: str, kind: str) -> onnx.NodeProto:
        """Return the node that gives *value*. Raises `GraphError` unless it is a *kind*."""
        node = self.find(value)
        if node is None or node.op_type != kind:
            raise GraphError(f"the network has {node.op_type if node else 'nothing'} where {kind} belongs")
        return node

    def behind_identities(self, value: str) -> str:
        """Return what *value* is called before the identities that give it."""
        while (node := self._producers.get(value)) is not None and node.op_type == "Identity":
            value = node.input[0]
        return value

    def constant(self, name: str) -> Array:
        """Return the value of a constant, also one that hides behind Constant, Identity and Reshape nodes."""
        if name in self._constants:
            return self._constants[name]
        node = self._producers.get(name)
        if node is not None and node.op_type == "Constant":
            return numpy_helper.to_array(attribute(node, "value", None))
        if node is not None and node.op_type == "Identity":
            return self.constant(node.input[0])
        if node is not None and node.op_type == "Reshape":
            return self.constant(node.input[0]).reshape(self.constant(node.input[1]))
        raise GraphError(f"{name} in the network is not constant")

    def is_constant(self, name: str) -> bool:
        """Return whether `constant` finds *name*."""
        try:
            self.constant(name)
        except GraphError:
            return False
        return True

    def takers(self, value: str) -> list[onnx.NodeProto]:
        """Return the nodes that take *value*."""
        return [node for node in self._graph.node if value in node.input]

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its *output*."""
        node = helper.make_node(kind, list(inputs), [output], **attributes)
        self._graph.node.append(node)
        self._producers[output] = self._graph.node[-1]
        return output

    def add_constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add the constant *name*, and return this."""
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        self._constants[name] = array
        return name

    def rename_output(self, node: onnx.NodeProto, name: str) -> None:
        """Let *node*, which gives one value, call it *name*; what it gave is for another node to give."""
        del self._producers[node.output[0]]
        node.output[0] = name
        self._producers[name] = node

    def remove(self, node: onnx.NodeProto) -> None:
        """Remove *node*; what it gave is for another node to give."""
        for output in node.output:
            del self._producers[output]
        self._graph.node.remove(node)

    def remove_between(self, start: str, end: str) -> None:
        """Remove the nodes that lead from *start* to *end*."""
        for node in list(self._backwards(end, start)):
            self.remove(node)

    def remove_unused(self) -> None:
        """Remove nodes and constants that lead nowhere."""
        while True:
            used = {name for node in self._graph.node for name in node.input} | {o.name for o in self._graph.output}
            unused = [node for node in self._graph.node if not used.intersection(node.output)]
            if not unused:
                break
            for node in unused:
                self.remove(node)
        for tensor in [tensor for tensor in self._graph.initializer if tensor.name not in used]:
            self._graph.initializer.remove(tensor)

    def _backwards(self, value: str, start: str) -> Iterator[onnx.NodeProto]:
        # The data path is a chain: its input is the first of every node (either of an Add).
        while value != start:
            node = self._producers[value]
            yield node
            value = next(name for name in node.input if not self.is_constant(name))


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute of *node*, or *default*."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
