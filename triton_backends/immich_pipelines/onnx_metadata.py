"""The metadata of an ONNX file, without reading its weights: a recogniser's dictionary lies behind 16 MB of them.

The package ``onnx`` parses the whole file, and takes 12 MB itself, in each process of a pipeline. A file is a message
of Protocol Buffers (https://protobuf.dev/programming-guides/encoding): fields one after the other, each with its
number, kind and, for what is skipped here, length.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

METADATA: Final = 14
"""``ModelProto.metadata_props``: repeated ``StringStringEntryProto``, of which 1 is the key and 2 the value."""

WEIGHTS_FILE: Final = "weights_file_sha256"
"""Key of what a model says of the file of weights beside it: see ``onnxruntime_backend.weights_file``."""

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
