"""Means of large maps in two steps: of small windows, and of what these give.

OpenVINO reduces a map of 12 or 24 channels number by number, or turns it around before, for half a millisecond at a
quarter of a page's size. An average pool computes where the channels lie, and leaves a 64th of the numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from immich_triton.export.ocr.graph import Graph
from immich_triton.export.onnx_graph import sort
from immich_triton.export.sessions import cpu_session

SIDE: Final = 32
"""The sides of a page are multiples of this."""
LEAST: Final = 4
"""Pixels of a map's side for each `SIDE` of the page's from which on a mean is worth another node."""


def pool_in_steps(model: onnx.ModelProto) -> int:
    """Let what pools a large map take means of windows, and return how many did; *model* takes floats [N, 3, H, W].

    A window is what a page of `SIDE` by `SIDE` pixels leaves of itself, so that all windows are full: their mean is
    the map's.
    """
    graph = Graph(model)
    pools = [node for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    changed = 0
    for node, (height, width) in zip(pools, _sizes(model, [node.input[0] for node in pools]), strict=True):
        if min(height, width) < LEAST:
            continue
        window = [height, width]
        name = f"{node.output[0]}_windows"
        node.input[0] = graph.add("AveragePool", [node.input[0]], name, kernel_shape=window, strides=window)
        changed += 1
    sort(model.graph)
    return changed


def _sizes(model: onnx.ModelProto, names: list[str]) -> list[tuple[int, int]]:
    """Return height and width of the maps *names* when *model* sees the smallest page."""
    if not names:
        return []
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    session = cpu_session(probe.SerializeToString())
    (page,) = session.get_inputs()
    values = session.run(names, {page.name: np.zeros((1, 3, SIDE, SIDE), np.float32)})
    return [(value.shape[2], value.shape[3]) for value in values]
