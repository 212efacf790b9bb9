"""Gates whose arithmetic goes into the convolution before them."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper
from tiny_ocr import network

from immich_triton.export.ocr import gates

Array = npt.NDArray[Any]

CHANNELS = 6


def gated(attributes: Mapping[str, float]) -> onnx.ModelProto:
    """Return a network that multiplies its input by a gate made of its means."""
    weights = np.random.default_rng(0).normal(0, 2, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    gate = helper.make_node("HardSigmoid", ["convolved"], ["gate"])
    gate.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Conv", ["means", "weights"], ["convolved"]),
        gate,
        helper.make_node("Mul", ["x", "gate"], ["out"]),
    ]
    return network(nodes, {"weights": weights}, ["n", CHANNELS, "h", "w"], ["n", CHANNELS, "h", "w"])


def run(model: onnx.ModelProto) -> Array:
    onnx.checker.check_model(model)
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    page = np.random.default_rng(1).normal(0, 3, (2, CHANNELS, 5, 7)).astype(np.float32)
    return np.asarray(session.run(None, {"x": page})[0])


@pytest.mark.parametrize("attributes", [{}, {"alpha": 1 / 6}, {"alpha": 0.3, "beta": 0.2}])
def test_the_product_is_the_same_without_a_hard_sigmoid(attributes: dict[str, float]) -> None:
    model = gated(attributes)
    before = run(model)
    assert gates.spell_out_gates(model) == 1
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-6)
    assert "HardSigmoid" not in [node.op_type for node in model.graph.node]


def test_openvino_computes_a_gate_with_the_convolution_before() -> None:
    model = gated({})
    assert kinds(model)["Math"] == 1, "a hard sigmoid is a node of its own, which is why it goes"
    gates.spell_out_gates(model)
    assert "Math" not in kinds(model)
    assert kinds(model)["Eltwise"] == 1, "the product"


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """Return how many nodes of which kind OpenVINO runs."""
    core = importlib.import_module("openvino").Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    return Counter(node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops())


def test_a_clip_whose_bounds_are_no_inputs_is_not_written() -> None:
    model = gated({})
    model.opset_import[0].version = 10
    assert gates.spell_out_gates(model) == 0
    assert "HardSigmoid" in [node.op_type for node in model.graph.node]
