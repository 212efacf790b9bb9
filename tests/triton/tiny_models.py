"""Small ONNX models, built on the spot, that show one behaviour each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Shape = Sequence[int | str]

FLOAT, HALF, INT64, INT32, BOOL, STRING, BFLOAT16 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.BOOL,
    TensorProto.STRING,
    TensorProto.BFLOAT16,
)

CONFIG = """# A model of the tests.
backend: "onnxruntime"
max_batch_size: 8
instance_group [ {{ kind: KIND_CPU count: {count} }} ]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
{extra}
"""


def config(*, count: int = 1, delay: int = 0, extra: str = "", **parameters: str) -> str:
    """Return a minimal ``config.pbtxt``: no inputs, no outputs."""
    lines = [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    return CONFIG.format(count=count, delay=delay, extra="\n".join([extra, *lines]))


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, tuple[int, Shape]],
    constants: Mapping[str, Array] | None = None,
    *,
    external_data: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the model *nodes* to *path*; with *external_data* each constant goes to a file of its own beside it."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()],
        [helper.make_tensor_value_info(name, *of) for name, of in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, save_as_external_data=external_data, all_tensors_to_one_file=False, size_threshold=0)
    return path


def identity(path: Path, kind: int = FLOAT, shape: Shape = ("n", 3)) -> Path:
    """y = x."""
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


def run_size(path: Path) -> Path:
    """Model whose output `size` [n] holds, in each row, the number of rows of the run, and whose `double` is 2 x."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Expand", ["rows", "rows"], ["size"]),
        helper.make_node("Add", ["x", "x"], ["double"]),
    ]
    return save(path, nodes, {"x": (FLOAT, ("n", "w"))}, {"size": (INT64, ("n",)), "double": (FLOAT, ("n", "w"))})


def lookup(path: Path, *, rows: int = 4) -> Path:
    """y = table[x] with *rows* rows: an index out of range makes the whole run fail."""
    table = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    return save(
        path,
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": (INT64, ("n",))},
        {"y": (FLOAT, ("n", 2))},
        {"table": table},
    )


def two_layers(path: Path, *, external_data: bool = False, kind: int = FLOAT, width: int = 64) -> Path:
    """y = relu(x a) b, with *width* x *width* matrices."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    random = np.random.default_rng(1)
    constants = {name: (random.standard_normal((width, width)) / np.sqrt(width)).astype(dtype) for name in ("a", "b")}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    tensors = (kind, ("n", width))
    return save(path, nodes, {"x": tensors}, {"y": tensors}, constants, external_data=external_data)


def convolution(path: Path, *, channels: int = 32) -> Path:
    """Two 3x3 convolutions over an image [n, 3, h, w] of any size."""
    random = np.random.default_rng(2)
    constants = {
        "a": (random.standard_normal((channels, 3, 3, 3)) / 5).astype(np.float32),
        "b": (random.standard_normal((4, channels, 3, 3)) / 17).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return save(path, nodes, {"x": (FLOAT, ("n", 3, "h", "w"))}, {"y": (FLOAT, ("n", 4, "h", "w"))}, constants)


CHANNELS = 32
"""Of `of_bytes`."""


def of_bytes(path: Path, *, signed: bool = False, bits: int = 32) -> Path:
    """1x1 convolution over an image [n, 32, h, w] of 0..1, all of whose weights are 1; y is 0..32 in steps of a byte.

    Pixels, weights and sums are bytes in between. *bits*, 32 or 16, hold two products of the largest ones; 16 the file
    says.
    """
    kind = np.dtype(np.int8 if signed else np.uint8)
    largest = np.iinfo(kind).max
    weight = {32: 127, 16: 64}[bits]
    constants: dict[str, Array] = {
        "pixel": np.array(1 / largest, np.float32),
        "sum": np.array(CHANNELS / largest, np.float32),
        "zero": np.array(0, kind),
        "bytes": np.full((CHANNELS, CHANNELS, 1, 1), weight, np.int8),
        "each": np.full(CHANNELS, 1 / weight, np.float32),
        "zeros": np.zeros(CHANNELS, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "pixel", "zero"], ["x_bytes"]),
        helper.make_node("DequantizeLinear", ["x_bytes", "pixel", "zero"], ["x_floats"]),
        helper.make_node("DequantizeLinear", ["bytes", "each", "zeros"], ["weights"], axis=0),
        helper.make_node("Conv", ["x_floats", "weights"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "sum", "zero"], ["y_bytes"]),
        helper.make_node("DequantizeLinear", ["y_bytes", "sum", "zero"], ["y"]),
    ]
    image = (FLOAT, ("n", CHANNELS, "h", "w"))
    says = {} if bits == 32 else {"pair_bits": str(bits)}
    return save(path, nodes, {"x": image}, {"y": image}, constants, metadata=says)


def weights_of_bytes(path: Path) -> Path:
    """y = x a, where a [4, 4] is stored as bytes and multiplied as floats."""
    constants: dict[str, Array] = {"bytes": np.ones((4, 4), np.int8), "scale": np.array(1, np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["bytes", "scale"], ["a"]),
        helper.make_node("MatMul", ["x", "a"], ["y"]),
    ]
    return save(path, nodes, {"x": (FLOAT, ("n", 4))}, {"y": (FLOAT, ("n", 4))}, constants)
