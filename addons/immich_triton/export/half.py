"""Networks in half precision: weights and what is computed in float16, inputs and outputs in float32 as before.

For GPUs alone. A CPU has no units for it: ONNX Runtime computes the same numbers there, and takes longer.
"""

from __future__ import annotations

import importlib

import onnx

from immich_triton.export.onnx_graph import GraphError


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return *model* in half precision, with its metadata; *model* itself is used up. Raises `GraphError`."""
    # By name: for a type checker triton_backends/onnxruntime is the module. The converter comes with ONNX Runtime.
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    halved: onnx.ModelProto = float16.convert_float_to_float16(model, keep_io_types=True)
    _sort(halved.graph)
    return halved


def _sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it takes from, as ONNX asks for: the casts of the inputs come last else."""
    known = {""} | {value.name for value in (*graph.input, *graph.initializer)}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise GraphError(f"node {waiting[0].name or waiting[0].op_type} waits for what no node gives")
        for node in ready:
            known.update(node.output)
        ordered += ready
        waiting = [node for node in waiting if not any(node is one for one in ready)]
    del graph.node[:]
    graph.node.extend(ordered)
