"""The part of a text detector that can be in int8, and the proof, at export time, that it sees the same text then.

Bytes in the first half of a detector make it unsure of single characters. What is rounded there passes through all that
follows; and "squeeze and excite" multiplies a map by what the whole page has on average, which on an almost empty page
is unlike anything that ranges were measured on. So these layers stay in floats. Behind the last convolution with a
stride are the deepest maps, and all that puts a page together from them: half of the time, and less of a difference to
the map of text than bf16 makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from immich_pipelines import onnx_metadata
from immich_pipelines.decode import MAX_PIXELS, decode_rgb
from immich_pipelines.ocr_detection import LIKELY
from immich_triton.export.ocr import int8
from immich_triton.export.ocr.graph import Graph, attribute
from immich_triton.export.ocr.proof import ProofError
from immich_triton.export.sessions import cpu_session

Array = npt.NDArray[Any]

BALANCE: Final = 0.5
"""As `int8.BALANCE`. Beside f32, in regions of text, probabilities differ by 0.0057 on average, with 0.75 by 0.0073; in
bf16 by 0.0113."""

MOST_CHANGED: Final = 0.01
"""Largest share of the pixels of text that may be none then, or the other way round. bf16 changes 0.5 %, the detectors
of v4, v5 and v6 in int8 0.7 to 0.8 %; v5's with all of its layers in int8, which is too many, 1.6 %."""


@dataclass(frozen=True)
class DetectorProof:
    """How many *layers* are in int8, and which share of the pixels of text *changed*, 0..1."""

    layers: int
    changed: float

    def __str__(self) -> str:
        """Return one phrase for the terminal."""
        return f"{self.layers} layers, {self.changed:.2%} of the pixels of text changed"


def late_layers(model: onnx.ModelProto) -> set[str]:
    """Return what the convolutions of *model* give that lie behind the last one with a stride.

    Without those that see the product of two maps, as a "squeeze and excite" gives one.
    """
    graph = Graph(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    strided = [node for node in convolutions if max(attribute(node, "strides", [1])) > 1]
    if not strided:
        return set()
    behind = set(strided[-1].output)
    for node in model.graph.node:  # in the order in which they compute
        if behind.intersection(node.input):
            behind.update(node.output)
    return {
        node.output[0]
        for node in convolutions
        if node.input[0] in behind and not _is_product_of_maps(graph, node.input[0])
    }


def _is_product_of_maps(graph: Graph, value: str) -> bool:
    node = graph.find(value)
    return node is not None and node.op_type == "Mul" and not any(map(graph.is_constant, node.input))


def quantize_detector(path: Path, pages: Sequence[bytes]) -> DetectorProof:
    """Put the `late_layers` of the ONNX file *path* into int8, in its place.

    *pages*: JPEG files in the size that the detector takes them in, from which the ranges come. The proof is made with
    the same pages turned by 90 degrees. Raises `ProofError` when another share of the pixels than `MOST_CHANGED` is
    text, or none was; the file then is as it was.
    """
    floats = path.read_bytes()
    model = onnx.load_from_string(floats)
    given = [decode_rgb(page, max_pixels=MAX_PIXELS)[np.newaxis] for page in pages]
    layers = int8.quantize(model, given, only=late_layers(model), balance=BALANCE)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    try:
        return _proof(layers, floats, path, [np.rot90(page, axes=(1, 2)) for page in given])
    except ProofError:
        path.write_bytes(floats)
        raise


def _proof(layers: int, floats: bytes, rebuilt: Path, pages: Sequence[Array]) -> DetectorProof:
    if not layers:
        raise ProofError("no layer is worth it")
    before, after = cpu_session(floats), cpu_session(rebuilt, as_written=onnx_metadata.too_wide(rebuilt))
    text = changed = 0
    for page in pages:
        given = {"x": np.ascontiguousarray(page)}
        expected, found = (session.run(["text"], given)[0] >= LIKELY for session in (before, after))
        text += int(expected.sum())
        changed += int((expected != found).sum())
    # Where no text was seen nothing is proven.
    if not text or changed > MOST_CHANGED * text:
        raise ProofError(f"{changed:,} pixels changed, of {text:,} that were text")
    return DetectorProof(layers, changed / text)
