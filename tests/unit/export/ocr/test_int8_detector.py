"""Of a text detector the late layers go into bytes, and it has to see the same text then."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tiny_net import Net

from immich_pipelines import onnx_metadata
from immich_triton.export.ocr import int8_detector
from immich_triton.export.ocr.int8_detector import late_layers, quantize_detector
from immich_triton.export.ocr.proof import ProofError

CHANNELS = 16


def pointwise(net: Net, value: str) -> str:
    return net.add("Conv", [value, net.weights(CHANNELS, CHANNELS, 1, 1)])


def strided(net: Net, value: str) -> str:
    weights = net.weights(CHANNELS, 1, 3, 3)
    ways = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "group": CHANNELS}
    return net.add("Conv", [value, weights], **ways)


def test_layers_behind_the_last_stride_are_late() -> None:
    net = Net(x=(1, CHANNELS, 16, 16))
    early = pointwise(net, strided(net, "x"))
    beside = pointwise(net, early)
    late = pointwise(net, net.add("Relu", [strided(net, early)]))
    enlarged = net.add("Resize", [late, "", net.constant(np.array([1, 1, 2, 2], np.float32))], mode="nearest")
    last = pointwise(net, net.add("Add", [enlarged, beside]))
    assert late_layers(net.model(last)) == {late, last}


def test_a_layer_that_sees_a_product_of_maps_stays_in_floats() -> None:
    net = Net(x=(1, CHANNELS, 16, 16))
    deep = strided(net, "x")
    excited = net.add("Mul", [deep, net.add("Sigmoid", [net.add("GlobalAveragePool", [deep])])])
    through = pointwise(net, excited)
    scaled = net.add("Mul", [through, net.constant(np.float32(2))])
    last = pointwise(net, scaled)
    assert late_layers(net.model(last)) == {last}


def test_without_a_stride_no_layer_is_late() -> None:
    net = Net(x=(1, CHANNELS, 16, 16))
    assert late_layers(net.model(pointwise(net, "x"))) == set()


def jpeg(ink: int = 0) -> bytes:
    page = np.full((64, 96, 3), 255, np.uint8)
    page[16:32, 16:80] = ink
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def save(path: Path, *, channels: int = CHANNELS) -> bytes:
    """Write a detector that takes dark for text, of half the size of the page, and return what it is."""
    net = Net()
    planes = net.add("Transpose", [net.add("Cast", ["x"], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
    halved = net.constant(np.full((channels, 3, 2, 2), 1 / 12, np.float32))
    small = net.add("Conv", [planes, halved], kernel_shape=[2, 2], strides=[2, 2])
    # White gives -127, and black 128.
    mean = net.constant(np.full((1, channels, 1, 1), -1 / channels, np.float32))
    net.nodes.append(helper.make_node("Conv", [small, mean, net.constant(np.array([128], np.float32))], ["logits"]))
    net.nodes.append(helper.make_node("Sigmoid", ["logits"], ["text"]))
    model = net.model("text")
    (output,) = model.graph.output
    output.name = "text"
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", "h", "w", 3]))
    onnx.save(model, path)
    return path.read_bytes()


def refused(path: Path, pages: Sequence[bytes], message: str) -> None:
    floats = path.read_bytes()
    with pytest.raises(ProofError, match=message):
        quantize_detector(path, pages)
    assert path.read_bytes() == floats


def test_a_detector_that_sees_the_same_text_is_proven(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(path)
    assert str(quantize_detector(path, [jpeg()])) == "1 layers, 0.00% of the pixels of text changed"
    assert onnx_metadata.metadata_props(path)["pair_bits"] == "16"


def test_one_that_sees_other_text_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    save(path)
    monkeypatch.setattr(int8_detector, "MOST_CHANGED", -1)
    refused(path, [jpeg()], "0 pixels changed, of 256 that were text")


def test_where_no_text_was_seen_nothing_is_proven(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(path)
    refused(path, [jpeg(ink=255)], "of 0 that were text")


def test_one_with_nothing_to_gain_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(path, channels=4)
    refused(path, [jpeg()], "no layer is worth it")
