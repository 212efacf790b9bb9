"""The tensors of an ONNX file, compared with what its Triton config says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from tritonclient.grpc import model_config_pb2

from immich_triton.triton import weights

TYPES: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.BFLOAT16: "TYPE_BF16",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.STRING: "TYPE_STRING",
}

UNKNOWN: Final = -1
"""An axis whose length is not fixed."""


class TensorError(ValueError):
    """A model file cannot be used; the text says why."""


@dataclass(frozen=True)
class Tensor:
    """Its data type, as Triton calls it, and its shape; None for one whose rank the file does not say."""

    type: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Graph:
    """What goes in and out, and the number by which a CLIP encoder's weights are known, if it gives one."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    fingerprint: int | None

    def differences(self, config: Any) -> Iterator[str]:
        """Yield what in *config* does not fit. What it leaves out is read from the file by the backend."""
        batched = config.max_batch_size > 0
        if config.input:
            stated = {tensor.name for tensor in config.input}
            for name in self.inputs.keys() - stated:
                yield f"the file needs the input {name}, which config.pbtxt does not state"
        for kind, stated_tensors, real in (
            ("input", config.input, self.inputs),
            ("output", config.output, self.outputs),
        ):
            for tensor in stated_tensors:
                if (found := real.get(tensor.name)) is None:
                    there = ", ".join(sorted(real)) or "none"
                    yield f"config.pbtxt states the {kind} {tensor.name}; the file has {there}"
                else:
                    yield from _compare(kind, tensor, found, batched=batched, most=config.max_batch_size)

    def vector_size(self) -> int:
        """Return how many numbers its vectors have; 0 where the file does not fix that.

        The output is called EMBEDDING, or is the only one.
        """
        tensor = self.outputs.get("EMBEDDING") or (
            next(iter(self.outputs.values())) if len(self.outputs) == 1 else Tensor("", None)
        )
        return max(0, tensor.shape[-1]) if tensor.shape else 0


def read(path: Path) -> Graph:
    """Read the tensors of an ONNX file. Raises `TensorError` where it, or a file that it refers to, is damaged."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise TensorError(f"{path.name} is no ONNX model: {error}") from error
    except OSError as error:
        raise TensorError(f"{path.name} cannot be read: {error.strerror}") from error
    graph = model.graph
    if not graph.output:
        raise TensorError(f"{path.name} is no ONNX model: it gives nothing")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in constants.values():
        _check_external(path, tensor)
    inputs = {value.name: _tensor(value) for value in graph.input if value.name not in constants}
    return Graph(
        inputs, {value.name: _tensor(value) for value in graph.output}, _fingerprint(graph, constants, path.parent)
    )


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    of = value.type.tensor_type
    shape = None
    if of.HasField("shape"):
        shape = tuple(axis.dim_value if axis.HasField("dim_value") else UNKNOWN for axis in of.shape.dim)
    return Tensor(TYPES.get(of.elem_type, f"type {of.elem_type} of ONNX"), shape)


def _check_external(path: Path, tensor: onnx.TensorProto) -> None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    place = {entry.key: entry.value for entry in tensor.external_data}
    file = path.parent / place.get("location", "")
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise TensorError(f"{path.name} takes {tensor.name} from {place.get('location')}, which is not in its folder")
    if not file.is_file():
        raise TensorError(f"{path.name} needs {place.get('location')} beside it, which is missing")
    ends = int(place.get("offset", 0)) + int(place.get("length", 0))
    if file.stat().st_size < ends:
        raise TensorError(f"{file.name} has {file.stat().st_size} bytes, {path.name} needs {ends}: it was cut off")


def _fingerprint(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto], folder: Path) -> int | None:
    """Return the constant that is spread over the batch as the output FINGERPRINT; None where it is made otherwise."""
    makers = {name: node for node in graph.node for name in node.output}
    name = weights.OUTPUT
    for _ in range(len(graph.node) + 1):
        if name in constants:
            values = numpy_helper.to_array(constants[name], base_dir=str(folder)).reshape(-1)
            return int(values[0]) if len(values) == 1 else None
        node = makers.get(name)
        if node is None or node.op_type not in _SPREADING:
            return _of_constant(node)
        name = node.input[0]
    return None


_SPREADING: Final = ("Cast", "Expand", "Identity", "Reshape", "Tile", "Unsqueeze")
"""Operators that give the number on which is their first input."""


def _of_constant(node: onnx.NodeProto | None) -> int | None:
    for attribute in node.attribute if node is not None and node.op_type == "Constant" else ():
        if attribute.name == "value":
            values = numpy_helper.to_array(attribute.t).reshape(-1)
            return int(values[0]) if len(values) == 1 else None
    return None


def _compare(kind: str, stated: Any, found: Tensor, *, batched: bool, most: int) -> Iterator[str]:
    what = f"{kind} {stated.name}"
    name = model_config_pb2.DataType.Name(stated.data_type)
    if name != found.type:
        yield f"{what} is {name} in config.pbtxt, {found.type} in the file"
    if found.shape is None:
        return
    shape: Sequence[int] = found.shape
    if batched:
        if not shape:
            yield f"{what} has no axis for a batch, but max_batch_size is {most}"
            return
        if shape[0] not in (UNKNOWN, most):
            yield f"{what} takes batches of {shape[0]} only, but max_batch_size is {most}"
        shape = shape[1:]
    if stated.HasField("reshape"):  # Triton changes the shape on the way
        return
    dims = tuple(stated.dims)
    fits = len(dims) == len(shape) and all(real in (UNKNOWN, dim) for dim, real in zip(dims, shape, strict=True))
    if not fits:
        yield f"{what} has dims {list(dims)} in config.pbtxt, {list(shape)} in the file"
