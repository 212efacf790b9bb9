"""The neck of a DBNet, rewritten to convolve maps before they are enlarged, and not after.

PP-OCR's mobile detectors put a page together from four scales ("RSE-FPN"): maps are enlarged by nearest neighbours,
added or laid side by side, and convolved by 3x3 kernels, the last two at a quarter of the page's size and from 96
channels to 24. These two take a third of the whole detector's time, and three things about them are known beforehand:

* Of the four pixels that a nearest neighbour makes of one all have the same value. A 3x3 kernel sees 2x2 different
  ones there, and its place in the block tells which of its weights fall together: four kernels of 2x2, computed where
  the map is small, whose channels are then put into blocks. Four ninths of the multiplications.
* "Squeeze and excite" with a short cut, x + x s, is x (1 + s) with one s for each channel, and goes into the weights of
  the convolution that follows: 20,000 numbers for each page in place of a map of 96 channels.
* So does a 1x1 convolution before that: the kernels see 12 channels instead of the 96 that were made of them. For this
  alone a third one is worth its parts, at an eighth of the page's size, though the sum of its maps is made for others.

The result is the same up to rounding. Weights that are made for one page are right for that page alone, so that such a
network takes one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from immich_triton.export.ocr.graph import Graph, attribute
from immich_triton.export.onnx_graph import sort

Array = npt.NDArray[Any]

_ONE: Final = "neck_one"
_PADS: Final = [1, 1, 1, 1]
_WORTH: Final = 0.75
"""Share of the multiplications up to which it is worth putting blocks into place."""


def fold_neck(model: onnx.ModelProto) -> int:
    """Rewrite each 3x3 convolution of enlarged maps, and return how many there were; none: *model* is as it was.

    Where the map that is not enlarged comes from a "squeeze and excite", the network takes one page at a time from now
    on.
    """
    graph = Graph(model)
    convolutions = [node for node in model.graph.node if _is_plain_3x3(node, graph)]
    folded = 0
    for node in convolutions:
        folded += _fold(graph, node, f"neck_{folded}")
    if folded:
        graph.add_constant(_ONE, np.float32(1))
        graph.remove_unused()
        sort(model.graph)
    return folded


@dataclass(frozen=True)
class _Part:
    """One of the maps that a convolution sees, *scale* times smaller than these, and its share of the weights."""

    value: str
    weights: Array
    scale: int = 1
    region: str = ""
    """What the enlargement was given as its region of interest, which nearest neighbours do not look at."""


def _fold(graph: Graph, node: onnx.NodeProto, name: str) -> bool:
    parts = _parts(graph, node.input[0], graph.constant(node.input[1]))
    small = [part for part in parts if part.scale > 1]
    large = [part for part in parts if part.scale == 1]
    if not small or len(large) != 1 or (_is_shared(graph, node.input[0]) and not _pays(graph, large[0], small)):
        return False
    graph.remove(node)
    enlarged = _of_enlarged(graph, small, f"{name}_small")
    graph.add("Add", [_of_one(graph, large[0], f"{name}_large"), enlarged], node.output[0])
    return True


def _parts(graph: Graph, value: str, weights: Array) -> list[_Part]:
    """Return what *value* is the sum or the row of, with the weights [out, in, 3, 3] that fall to each."""
    joint = graph.find(value)
    if joint is None:
        return []
    if joint.op_type == "Add" and not any(map(graph.is_constant, joint.input)):
        return [_part(graph, each, weights) for each in joint.input]
    if joint.op_type != "Concat" or weights.shape[1] % len(joint.input):
        return []
    # The maps of a neck have the same number of channels each; the proof of the export tells if these had not.
    shares = np.split(weights, len(joint.input), axis=1)
    return [_part(graph, each, share) for each, share in zip(joint.input, shares, strict=True)]


def _is_shared(graph: Graph, value: str) -> bool:
    return len(graph.takers(graph.behind_identities(value))) != 1


def _pays(graph: Graph, large: _Part, small: Sequence[_Part]) -> bool:
    """Return whether parts are worth convolving where others take their sum too, so that this is made anyway."""
    excited = _excited(graph, large.value)
    expansion = excited and _expansion(graph, excited[0])
    if not expansion:
        return False
    seen = graph.constant(expansion.input[1]).shape[1]
    blocks = sum(part.weights.shape[1] for part in small)
    return 9 * seen + 4 * blocks <= _WORTH * 9 * large.weights.shape[1]


def _part(graph: Graph, value: str, weights: Array) -> _Part:
    node = graph.find(value)
    if node is None or node.op_type != "Resize" or attribute(node, "mode", b"nearest") != b"nearest":
        return _Part(value, weights)
    ways = attribute(node, "coordinate_transformation_mode", b""), attribute(node, "nearest_mode", b"")
    scales = graph.constant(node.input[2]).tolist() if len(node.input) == 3 else []
    if ways != (b"asymmetric", b"floor") or scales not in ([1, 1, 2, 2], [1, 1, 4, 4], [1, 1, 8, 8]):
        return _Part(value, weights)
    return _Part(node.input[0], weights, int(scales[2]), node.input[1])


def _of_enlarged(graph: Graph, parts: Sequence[_Part], name: str) -> str:
    """Convolve *parts* as if they were enlarged, at half of the size that they would have."""
    maps = [
        part.value if part.scale == 2 else _enlarged(graph, part, part.scale // 2, f"{name}_{place}")
        for place, part in enumerate(parts)
    ]
    seen = maps[0] if len(maps) == 1 else graph.add("Concat", maps, f"{name}_maps", axis=1)
    kernels = graph.add_constant(f"{name}_kernels", _in_blocks(np.concatenate([p.weights for p in parts], axis=1)))
    blocks = graph.add("Conv", [seen, kernels], f"{name}_blocks", kernel_shape=[2, 2], pads=_PADS)
    pixels = graph.add("DepthToSpace", [blocks], f"{name}_pixels", blocksize=2)
    # Windows begin before the map and end behind it: one pixel too many at each side.
    bounds = [
        graph.add_constant(f"{name}_{key}", np.array(ends))
        for key, ends in (("from", [1, 1]), ("to", [-1, -1]), ("axes", [2, 3]))
    ]
    return graph.add("Slice", [pixels, *bounds], f"{name}_convolved")


def _enlarged(graph: Graph, part: _Part, times: int, name: str) -> str:
    scales = graph.add_constant(f"{name}_scales", np.array([1, 1, times, times], np.float32))
    ways = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", [part.value, part.region, scales], f"{name}_enlarged", **ways)


def _in_blocks(weights: Array) -> Array:
    """Return the kernels [4 * out, in, 2, 2] that convolve a small map as *weights* [out, in, 3, 3] do twice as large.

    The window that begins at pixel k - 1 of the small map gives the odd row 2k - 1 and the even row 2k of the large one
    (and columns alike), in this order: behind the first row that is left out these lie where they belong.
    """
    rows = (_falling_together(weights, 2, odd=odd) for odd in (True, False))
    return np.concatenate([_falling_together(row, 3, odd=odd) for row in rows for odd in (True, False)])


def _falling_together(weights: Array, axis: int, *, odd: bool) -> Array:
    before, at, behind = np.split(weights, 3, axis=axis)
    return np.concatenate([before + at, behind] if odd else [before, at + behind], axis=axis)


def _of_one(graph: Graph, part: _Part, name: str) -> str:
    """Convolve the one map that is not enlarged."""
    value, kernels = part.value, graph.add_constant(f"{name}_weights", part.weights)
    if (excited := _excited(graph, value)) is not None:
        value, scale = excited
        factor = graph.add("Add", [scale, _ONE], f"{name}_factor")
        expansion = _expansion(graph, value)
        if expansion is None:
            kernels = graph.add("Mul", [kernels, factor], f"{name}_kernels")
        else:
            kernels = _composed(graph, part.weights, factor, graph.constant(expansion.input[1]), name)
            _pool_before(graph, expansion, name)
            value = expansion.input[0]
    return graph.add("Conv", [value, kernels], f"{name}_convolved", kernel_shape=[3, 3], pads=_PADS)


def _excited(graph: Graph, value: str) -> tuple[str, str] | None:
    """Return x and s where *value* is x + x s."""
    joint = graph.find(value)
    if joint is None or joint.op_type != "Add":
        return None
    for short, long in (joint.input, joint.input[::-1]):
        product = graph.find(long)
        if product is not None and product.op_type == "Mul" and short in product.input:
            return short, next(each for each in product.input if each != short)
    return None


def _expansion(graph: Graph, value: str) -> onnx.NodeProto | None:
    """Return the 1x1 convolution without bias that gives *value*."""
    node = graph.find(value)
    if node is None or node.op_type != "Conv" or len(node.input) != 2 or attribute(node, "group", 1) != 1:
        return None
    return node if graph.constant(node.input[1]).shape[2:] == (1, 1) else None


def _composed(graph: Graph, weights: Array, factor: str, expansion: Array, name: str) -> str:
    """Return kernels [out, J, 3, 3] that do what *expansion* [C, J, 1, 1], *factor* [1, C, 1, 1] and *weights* do."""
    out, channels = weights.shape[:2]
    taps = graph.add_constant(f"{name}_taps", weights.transpose(0, 2, 3, 1).reshape(-1, channels))
    row = graph.add("Reshape", [factor, graph.add_constant(f"{name}_row", np.array([1, channels]))], f"{name}_factors")
    scaled = graph.add("Mul", [taps, row], f"{name}_scaled")
    matrix = graph.add_constant(f"{name}_expansion", expansion[:, :, 0, 0])
    product = graph.add("MatMul", [scaled, matrix], f"{name}_product")
    shape = graph.add_constant(f"{name}_shape", np.array([out, 3, 3, expansion.shape[1]]))
    last = graph.add("Reshape", [product, shape], f"{name}_kernels_last")
    return graph.add("Transpose", [last], f"{name}_kernels", perm=[0, 3, 1, 2])


def _pool_before(graph: Graph, expansion: onnx.NodeProto, name: str) -> None:
    """Let what pools all of *expansion*'s output pool its input: the mean of a linear map is the map of the mean."""
    pools = [node for node in graph.takers(expansion.output[0]) if node.op_type == "GlobalAveragePool"]
    for place, node in enumerate(pools):
        graph.remove(node)
        mean = graph.add("GlobalAveragePool", [expansion.input[0]], f"{name}_mean_{place}")
        graph.add("Conv", [mean, expansion.input[1]], node.output[0], kernel_shape=[1, 1])


def _is_plain_3x3(node: onnx.NodeProto, graph: Graph) -> bool:
    """Return whether *node* is a 3x3 convolution with a border of one, without bias, stride or groups."""
    return (
        node.op_type == "Conv"
        and len(node.input) == 2
        and graph.is_constant(node.input[1])
        and graph.constant(node.input[1]).shape[2:] == (3, 3)
        and list(attribute(node, "pads", [])) == _PADS
        and list(attribute(node, "strides", [1, 1])) == [1, 1]
        and list(attribute(node, "dilations", [1, 1])) == [1, 1]
        and attribute(node, "group", 1) == 1
    )
