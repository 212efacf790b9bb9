"""A network under construction, for tests of what the export does to a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from immich_triton.export.sessions import cpu_session

Array = npt.NDArray[Any]


class Net:
    """Nodes and constants, and random *inputs* of the sizes that are given."""

    def __init__(self, **inputs: Sequence[int]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        # Of its own: what a test computes does not depend on those that ran before.
        self._random = np.random.default_rng(3)
        self.inputs = {name: self._random.normal(size=shape).astype(np.float32) for name, shape in inputs.items()}

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node; return what it gives."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: npt.ArrayLike) -> str:
        """Add a constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def weights(self, *shape: int) -> str:
        """Add a constant of random numbers."""
        return self.constant(self._random.normal(size=shape).astype(np.float32))

    def model(self, output: str, *, opset: int = 13, any_size: bool = False) -> onnx.ModelProto:
        """Return the model that gives the map *output*; with *any_size* its inputs have any height and width."""
        inputs = {
            name: [
                *value.shape[:2],
                *(f"{name}{axis}" if any_size else size for axis, size in enumerate(value.shape[2:])),
            ]
            for name, value in self.inputs.items()
        }
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(output, 1, ["n", "c", "height", "width"])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])

    def run(self, model: onnx.ModelProto) -> Array:
        """Return what *model* makes of the inputs."""
        return np.asarray(cpu_session(model.SerializeToString()).run(None, self.inputs)[0])
