"""Networks in half precision: weights and what is computed in float16, inputs and outputs in float32 as before.

For GPUs alone. A CPU has no units for it: ONNX Runtime computes the same numbers there, and takes longer.
"""

from __future__ import annotations

import importlib

import onnx

from immich_triton.export.onnx_graph import sort


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return *model* in half precision, with its metadata; *model* itself is used up."""
    # By name: for a type checker triton_backends/onnxruntime is the module. The converter comes with ONNX Runtime.
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    halved: onnx.ModelProto = float16.convert_float_to_float16(model, keep_io_types=True)
    # The casts of the inputs come last else.
    sort(halved.graph)
    return halved
