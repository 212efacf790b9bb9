"""The layers of a network that cost most, in int8: post-training static quantisation.

VNNI multiplies bytes at twice the rate of bf16 and four times that of float32, and sums them exactly in 32 bits. CPUs
without it take half as long for bytes as for float32, and add two products up in 16 bits. So what such a layer sees
becomes bytes, and its weights become such of 7 bits, for which both are exact (`immich_pipelines.cpus.pair_bits`);
what it gives is a float again, as is all between these layers.

* Channel j of what a layer sees becomes q = round(x / s_j) + z_j, 0 to 255. Layers multiply with one step for all
  channels, which is coarse where these differ by 100 to 1, as here. So each is divided by a step of its own, and
  the weights that meet it are multiplied by it, which leaves the layer as it was ("cross-layer equalisation", Nagel et
  al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, arXiv 1906.04721). How much of the
  difference goes over to the weights is a compromise, as in SmoothQuant (Xiao et al., 2022, arXiv 2211.10438): see
  `BALANCE`.
* Weights have a step for each channel that they give: the largest becomes 64. Two products cannot exceed 16 bits then.
* Rounded weights and clipped inputs shift what a layer gives on average. A layer's bias takes that back, and the zero
  points z_j with it: b = W mean(x) - W' mean(q) ("bias correction", section 4.2 of the first).

In ONNX these are pairs of QuantizeLinear and DequantizeLinear. The step of the second is 1 for what a layer sees, and
its zero point 0: an engine has nothing to subtract.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import version_converter

from immich_pipelines import onnx_metadata
from immich_triton.export.ocr import activations
from immich_triton.export.ocr.activations import Seen, Steps, as_bytes
from immich_triton.export.ocr.graph import Graph, attribute
from immich_triton.export.onnx_graph import opset_of, require_axes_as_attributes, set_metadata, sort

Array = npt.NDArray[Any]

BALANCE: Final = 0.75
"""1: every channel of an input has all 255 steps, and weights differ as much as the channels did; 0: one step for all.
With weights of 8 bits the mean difference of the log-probabilities that a recogniser gives was, on 80 lines, 0.0137
with 0.65, 0.0101 with 0.75 and 0.0139 with 0.85, before the bias was corrected (0.0062 then, and 0.0059 for bf16). With
7 bits 0.6 gives no more lines than 0.75."""

LEAST_CHANNELS: Final = 16
"""Of what a layer sees. The first layer sees three, and is no faster in int8."""

MANY: Final = 1000
"""Channels that a matrix product gives. The last layer of a recogniser gives 6,625 or more, the others 360."""

_OPSET: Final = 13
"""The first with a step for each channel."""
_LARGEST, _PAIR_BITS = 64, 16
"""A weight, and the bits that hold two products of such a one and a byte: 255 * 64 * 2 is 32,640, below 32,768."""
_SIGNED_LIMIT: Final = 127
_NARROWEST: Final = 1e-3
"""No channel's range counts as less than this share of the widest."""

SOURCES: Final = (__file__, activations.__file__, str(Path(__file__).with_name("calibration_lines.py")))
"""The files that determine what is written, but for the calibration pages."""


@dataclass(frozen=True)
class _Layer:
    """A convolution or matrix product, *node*, with constant *weights* [out, in, …].

    *sees*: the map [N, in, H, W] that it computes with; *entry*: the node that takes this, for a matrix product the
    first of those that make rows of it.
    """

    node: onnx.NodeProto
    weights: Array
    sees: str
    entry: onnx.NodeProto

    @property
    def padded(self) -> bool:
        """Whether it sees zeros around the map, so that zero has to be the byte 0."""
        return any(attribute(self.node, "pads", []))


def quantize(
    model: onnx.ModelProto,
    calibration: Sequence[Array],
    *,
    only: Collection[str] | None = None,
    balance: float = BALANCE,
) -> int:
    """Put the layers of *model* that cost most into int8, in place, and return how many these are.

    *only*: of these layers those that give one of these values; *balance*: see `BALANCE`. *calibration*: inputs
    of the network as they come in use. What a layer sees of them is the range of its bytes; what
    lies outside counts as the nearest byte. The metadata say that 16 bits hold two products. Raises `GraphError` for an
    opset above 17.
    """
    require_axes_as_attributes(model)
    if opset_of(model) < _OPSET:
        model.CopyFrom(version_converter.convert_version(model, _OPSET))
    graph = Graph(model)
    candidates = [layer for layer in _layers(model, graph) if only is None or layer.node.output[0] in only]
    seen = activations.ranges(model, list(dict.fromkeys(layer.sees for layer in candidates)), calibration)
    layers: dict[str, list[_Layer]] = {}
    for layer in candidates:
        # Of a map that was pooled to one pixel there is nothing to save.
        if not seen[layer.sees].single:
            layers.setdefault(layer.sees, []).append(layer)
    steps = {
        sees: _steps(seen[sees], balance, padded=any(each.padded for each in those)) for sees, those in layers.items()
    }
    means = activations.mean_bytes(model, steps, calibration)
    for place, (sees, those) in enumerate(layers.items()):
        name = f"int8_{place}"
        bytes_ = as_bytes(graph, sees, steps[sees], name)
        for number, layer in enumerate(those):
            layer.entry.input[0] = bytes_
            _put_into_int8(graph, layer, steps[sees].step, seen[sees].mean, means[sees], f"{name}_{number}")
    graph.remove_unused()
    sort(model.graph)
    set_metadata(model, onnx_metadata.PAIR_BITS, str(_PAIR_BITS))
    return sum(map(len, layers.values()))


def quantize_file(path: Path, calibration: Sequence[Array]) -> int:
    """`quantize` the ONNX file *path* in its place."""
    model = onnx.load(path)
    layers = quantize(model, calibration)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return layers


def _layers(model: onnx.ModelProto, graph: Graph) -> Iterator[_Layer]:
    for node in model.graph.node:
        if node.op_type not in {"Conv", "MatMul"} or not graph.is_constant(node.input[1]):
            continue
        weights = graph.constant(node.input[1])
        if node.op_type == "Conv":
            if weights.shape[1] >= LEAST_CHANNELS and attribute(node, "group", 1) == 1:
                yield _Layer(node, weights, node.input[0], node)
        elif weights.ndim == 2 and weights.shape[1] >= MANY and (entry := _where_rows_begin(graph, node)) is not None:
            yield _Layer(node, weights.T, entry.input[0], entry)


def _where_rows_begin(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return what makes the rows [N, T, C] that *node* sees of a map [N, C, 1, T], if nothing else sees them.

    Engines have steps for the channels of a map alone.
    """
    for kind in ("Transpose", "Squeeze"):
        before = graph.find(node.input[0])
        if before is None or before.op_type != kind or len(graph.takers(before.output[0])) != 1:
            return None
        node = before
    return node


def _steps(seen: Seen, balance: float, *, padded: bool) -> Steps:
    low, high = np.minimum(seen.low, 0), np.maximum(seen.high, 0)
    signed = padded and bool(low.any())
    if signed:
        low, high = np.minimum(low, -high), np.maximum(high, -low)
    levels = 2 * _SIGNED_LIMIT if signed else 255
    # From the lowest of all channels to the highest.
    whole = max(float(high.max()) - float(low.min()), float(np.finfo(np.float32).tiny))
    share = np.maximum((high - low) / whole, _NARROWEST)
    step: Array = (whole / levels * share**balance).astype(np.float32)
    zero = np.zeros(len(step), np.int8) if signed else np.rint(-low / step).astype(np.uint8)
    return Steps(step, zero)


def _put_into_int8(graph: Graph, layer: _Layer, step: Array, mean: Array, mean_byte: Array, name: str) -> None:
    """Give *layer* weights of bytes that expect bytes, and the bias that keeps what it gives on average."""
    node, weights = layer.node, layer.weights.astype(np.float64)
    rows = np.moveaxis(weights, 1, -1)
    scaled = rows * step
    largest: Array = np.abs(scaled).reshape(len(scaled), -1).max(axis=1)
    scale = np.maximum(largest / _LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    in_steps = scale.reshape(-1, *[1] * (rows.ndim - 1))
    quantized = np.rint(scaled / in_steps)
    shift = rows @ mean - (quantized * in_steps) @ mean_byte
    shift = shift.reshape(len(rows), -1).sum(axis=1).astype(np.float32)

    matrix = node.op_type == "MatMul"
    stored = np.moveaxis(quantized, -1, 1).astype(np.int8)
    constants: tuple[Array, ...] = (stored.T if matrix else stored, scale, np.zeros(len(scale), np.int8))
    keys = ("weights", "scale", "middle")
    inputs = [graph.add_constant(f"{name}_{key}", value) for key, value in zip(keys, constants, strict=True)]
    node.input[1] = graph.add("DequantizeLinear", inputs, f"{name}_dequantized", axis=1 if matrix else 0)
    output = node.output[0]
    graph.rename_output(node, f"{name}_shifted")
    bias = graph.add_constant(f"{name}_bias", shift if matrix else shift.reshape(1, -1, 1, 1))
    graph.add("Add", [node.output[0], bias], output)
