"""Runs an ONNX network where it is made, to compare it with its original and to see what its layers see."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def cpu_session(model: Path | bytes, *, as_written: bool = False) -> Any:
    """Return an ONNX Runtime session for *model* on the CPU.

    *as_written*: pairs of QuantizeLinear and DequantizeLinear stay what they are, so that nothing is summed in bytes:
    without VNNI a CPU does that with too few bits for some weights (`immich_pipelines.cpus.pair_bits`).
    """
    # By name: for a type checker triton_backends/onnxruntime is the module.
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
