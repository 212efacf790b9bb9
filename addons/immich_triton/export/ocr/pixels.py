"""A network that takes the pixels of a page as they are, a quarter of the bytes on their way."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from immich_triton.export.ocr.graph import Graph
from immich_triton.export.onnx_graph import GraphError, sort

MIDDLE: Final = 127.5
"""The value of a pixel that is 0 for the network; 0 and 255 are -1 and 1."""


def take_pixels(model: onnx.ModelProto, name: str) -> None:
    """Replace the input *name*, float32 [N, 3, H, W] in BGR and -1..1, by uint8 [N, H, W, 3] in RGB.

    The order of the colours goes into the weights of the first convolution. Raises `GraphError` when that is not what
    takes the input.
    """
    graph = Graph(model)
    (first, *others) = graph.takers(name)
    if others or first.op_type != "Conv":
        raise GraphError(f"{name} is not the input of one convolution")
    weights: npt.NDArray[Any] = graph.constant(first.input[1])
    first.input[1] = graph.add_constant("pixel_weights", weights[:, ::-1])
    middle = graph.add_constant("pixel_middle", np.float32(MIDDLE))
    scale = graph.add_constant("pixel_scale", np.float32(1 / MIDDLE))
    # Channels first while a pixel is still one byte.
    graph.add("Transpose", [name], "pixel_planes", perm=[0, 3, 1, 2])
    graph.add("Cast", ["pixel_planes"], "pixel_floats", to=TensorProto.FLOAT)
    graph.add("Sub", ["pixel_floats", middle], "pixel_differences")
    first.input[0] = graph.add("Mul", ["pixel_differences", scale], "pixel_values")
    (value,) = (each for each in model.graph.input if each.name == name)
    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", "height", "width", 3]))
    graph.remove_unused()
    sort(model.graph)
