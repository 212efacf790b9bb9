"""A convolution does all of a gate but the product."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
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


def gated(
    attributes: Mapping[str, float] = MappingProxyType({}), *, seen_by_another: bool = False, bias: bool = True
) -> onnx.ModelProto:
    """Return a network that multiplies its input by a gate made of its means."""
    random = np.random.default_rng(0)
    constants = {
        "inner": random.normal(0, 2, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32),
        "shift": random.normal(0, 2, (1, CHANNELS, 1, 1)).astype(np.float32),
    }
    gate = helper.make_node("HardSigmoid", ["same"], ["gate"])
    gate.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Conv", ["means", "inner"], ["convolved"]),
        helper.make_node("Add", ["convolved", "shift"], ["shifted"])
        if bias
        else helper.make_node("Relu", ["convolved"], ["shifted"]),
        helper.make_node("Identity", ["shifted"], ["same"]),
        gate,
        helper.make_node("Mul", ["x", "gate"], ["product"]),
        helper.make_node("Add", ["product", "shifted" if seen_by_another else "x"], ["out"]),
    ]
    return network(nodes, constants, ["n", CHANNELS, "h", "w"], ["n", CHANNELS, "h", "w"])


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
    assert gates.fold_gates(model) == 1
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-5)
    kinds = [node.op_type for node in model.graph.node]
    assert "HardSigmoid" not in kinds
    assert kinds.count("Clip") == 1
    assert "inner" not in {tensor.name for tensor in model.graph.initializer}, "the old weights are not kept beside"


def test_a_hard_sigmoid_stays_where_it_is_no_gate_of_a_convolution() -> None:
    for model in (gated(seen_by_another=True), gated(bias=False)):
        before = run(model)
        assert gates.fold_gates(model) == 0
        assert "HardSigmoid" in [node.op_type for node in model.graph.node]
        np.testing.assert_array_equal(run(model), before)


def test_a_clip_whose_bounds_are_no_inputs_is_not_written() -> None:
    model = gated()
    model.opset_import[0].version = 10
    assert gates.fold_gates(model) == 0
