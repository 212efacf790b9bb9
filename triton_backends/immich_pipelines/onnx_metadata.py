"""The metadata of an ONNX file, and its operators, without its weights: a dictionary lies behind 16 MB of them.

The package ``onnx`` parses the whole file, and takes 12 MB itself, in each process of a pipeline. A file is a message
of Protocol Buffers (https://protobuf.dev/programming-guides/encoding): fields one after the other, each with its
number, kind and, for what is skipped here, length.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from immich_pipelines import cpus

METADATA: Final = 14
"""``ModelProto.metadata_props``: repeated ``StringStringEntryProto``, of which 1 is the key and 2 the value."""

GRAPH, NODE, OPERATOR = 7, 1, 4
"""``ModelProto.graph``, ``GraphProto.node`` and ``NodeProto.op_type``."""

WEIGHTS_FILE: Final = "weights_file_sha256"
"""Key of what a model says of the file of weights beside it: see ``onnxruntime_backend.weights_file``."""

PAIR_BITS: Final = "pair_bits"
"""Key of what a model of bytes says of itself: 16 where so many bits hold the sum of any two products."""

_OF_BYTES: Final = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)
"""Operators that make bytes of floats, and those that multiply them.

Not ``DequantizeLinear``: a model whose weights alone are bytes multiplies floats.
"""

ALL_BITS: Final = 32

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Kinds of fields ("wire types")."""


def metadata_props(path: Path) -> dict[str, str]:
    """Return the metadata of the model in *path*. Raises OSError, or ValueError when that is no ONNX file."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        found: dict[str, str] = {}
        for number, start, stop in _fields(file, end):
            if number == METADATA:
                entry = {field: _text(file, *place) for field, *place in list(_fields(file, stop, start))}
                found[entry.get(1, "")] = entry.get(2, "")
                file.seek(stop)
        return found


def of_bytes(path: Path) -> bool:
    """Return whether the model in *path* multiplies bytes (int8), as far as its graph says it outside of branches.

    Raises OSError, or ValueError when that is no ONNX file.
    """
    return not _OF_BYTES.isdisjoint(operators(path))


def too_wide(path: Path) -> bool:
    """Return whether the model in *path* multiplies bytes that this CPU cannot (`cpus.pair_bits`).

    A model that does not say how many bits hold two of its products needs all 32. Raises OSError, or ValueError when
    that is no ONNX file.
    """
    bits = cpus.pair_bits()
    return bits < ALL_BITS and of_bytes(path) and int(metadata_props(path).get(PAIR_BITS, ALL_BITS)) > bits


def operators(path: Path) -> frozenset[str]:
    """Return the types of the nodes in the graph of *path*, but for those in the branches of an ``If`` or a ``Loop``.

    Raises OSError, or ValueError when that is no ONNX file.
    """
    with path.open("rb") as file:
        graphs = _only(file, GRAPH, 0, file.seek(0, 2))
        nodes = [place for graph in graphs for place in _only(file, NODE, *graph)]
        return frozenset(_text(file, *place) for node in nodes for place in _only(file, OPERATOR, *node))


def _only(file: BinaryIO, field: int, start: int, end: int) -> list[tuple[int, int]]:
    """Return start and end of every *field* of bytes between *start* and *end*."""
    return [(begin, stop) for number, begin, stop in _fields(file, end, start) if number == field]


def _fields(file: BinaryIO, end: int, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of every field of bytes between *start* and *end*; *file* is moved behind each."""
    place = start
    while place < end:
        file.seek(place)
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _varint(file)
            place = file.tell()
        elif kind in (FIXED32, FIXED64):
            place = file.tell() + (4 if kind == FIXED32 else 8)
        elif kind == BYTES:
            length = _varint(file)
            begin = file.tell()
            place = begin + length
            if place > end:
                raise ValueError("the file ends too soon, or is no ONNX file")
            yield number, begin, place
        else:
            raise ValueError(f"a field of kind {kind} is in no ONNX file")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("the file ends too soon, or is no ONNX file")


def _text(file: BinaryIO, start: int, stop: int) -> str:
    file.seek(start)
    return file.read(stop - start).decode("utf-8")
