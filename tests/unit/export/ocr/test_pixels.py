"""A network that takes the pixels of a page as they are."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_ocr import head, network

from immich_triton.export.ocr import pixels
from immich_triton.export.onnx_graph import GraphError


def test_pixels_and_what_was_made_of_them_give_the_same() -> None:
    weights = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "weights"], ["out"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])]
    model = network(nodes, {"weights": weights}, ["n", 3, "h", "w"], ["n", 2, "h", "w"])
    runtime = importlib.import_module("onnxruntime")
    page = np.random.default_rng(1).integers(0, 256, (1, 5, 7, 3), np.uint8)
    floats = np.ascontiguousarray((page[..., ::-1] / np.float32(127.5) - 1).transpose(0, 3, 1, 2), np.float32)
    (expected,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": floats})
    pixels.take_pixels(model, "x")
    onnx.checker.check_model(model)
    (found,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": page})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "weights" not in {tensor.name for tensor in model.graph.initializer}, "the old weights are not kept beside"


def test_a_network_that_begins_otherwise_is_refused() -> None:
    with pytest.raises(GraphError, match="x is not the input of one convolution"):
        pixels.take_pixels(head(kernel=2), "x")
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "x"], ["out"])]
    two = network(nodes, {"w": np.ones((3, 3, 1, 1), np.float32)}, ["n", 3, "h", "w"], ["n", 3, "h", "w"])
    assert numpy_helper.to_array(two.graph.initializer[0]).shape == (3, 3, 1, 1)
    with pytest.raises(GraphError, match="x is not the input of one convolution"):
        pixels.take_pixels(two, "x")
