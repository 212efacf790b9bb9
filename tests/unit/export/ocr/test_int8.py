"""The layers that cost most, in bytes: what they give stays, and so does all the rest."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from tiny_net import Net

from immich_triton.export.ocr import int8
from immich_triton.export.onnx_graph import GraphError, metadata
from immich_triton.export.sessions import cpu_session

Array = npt.NDArray[Any]

CHANNELS = 16


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model: onnx.ModelProto, given: Array) -> Array:
    return np.asarray(cpu_session(model.SerializeToString(), as_written=True).run(None, {"x": given})[0])


def quantized(net: Net, output: str, expected: int = 1, **options: Any) -> onnx.ModelProto:
    """Put the network into int8, calibrated with its own input, and expect so many layers and an unchanged result."""
    before, after = net.model(output, **options), net.model(output, **options)
    assert int8.quantize(after, [net.inputs["x"]]) == expected
    onnx.checker.check_model(after, full_check=True)
    assert relative_error(run(before, net.inputs["x"]), run(after, net.inputs["x"])) < 0.02
    return after


def relative_error(expected: Array, found: Array) -> float:
    """Return the root mean square of the difference, as a share of that of what is expected."""
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def pointwise(net: Net, value: str, channels: int = CHANNELS) -> str:
    return net.add("Conv", [value, net.weights(channels, channels, 1, 1)])


def test_a_convolution_gives_what_it_gave() -> None:
    net = Net(x=(2, CHANNELS, 8, 12))
    model = quantized(net, pointwise(net, "x"))
    assert kinds(model) == {"QuantizeLinear": 1, "DequantizeLinear": 2, "Conv": 1, "Add": 1}
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_weights")]
    assert [(tensor.data_type, list(tensor.dims)) for tensor in weights] == [
        (onnx.TensorProto.INT8, [CHANNELS, CHANNELS, 1, 1])
    ]


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
@pytest.mark.parametrize("outlier", [1, 1000])
def test_no_two_products_of_bytes_exceed_16_bits(scale: float, outlier: float) -> None:
    net = Net(x=(2, CHANNELS, 8, 12))
    weights = np.random.default_rng(0).normal(size=(CHANNELS, CHANNELS, 1, 1)) * scale
    weights[:, 3] *= outlier
    model = net.model(net.add("Conv", ["x", net.constant(weights.astype(np.float32))]))
    int8.quantize(model, [net.inputs["x"]])
    (found,) = (numpy_helper.to_array(each) for each in model.graph.initializer if each.name.endswith("_weights"))
    largest = np.abs(found.astype(int)).max(axis=(1, 2, 3))
    assert 2 * 255 * largest.max() < 2**15
    # No smaller than they have to be, in any channel.
    np.testing.assert_array_equal(largest, 64)
    assert metadata(model)["pair_bits"] == "16"


def test_a_bias_and_an_activation_stay() -> None:
    net = Net(x=(1, CHANNELS, 8, 12))
    weights, bias = net.weights(CHANNELS, CHANNELS, 1, 1), net.weights(CHANNELS)
    quantized(net, net.add("Relu", [net.add("Conv", ["x", weights, bias])]))


def test_zeros_around_a_map_with_negative_values_stay_zeros() -> None:
    net = Net(x=(1, CHANNELS, 6, 6))
    weights = net.weights(CHANNELS, CHANNELS, 3, 3)
    ways = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    # Far from zero, so that anything else around the map would show.
    net.inputs["x"] = net.inputs["x"] / 10 - 5
    model = quantized(net, net.add("Conv", ["x", weights], **ways))
    (zero,) = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name.endswith("_zero"))
    assert zero.dtype == np.int8
    assert not zero.any()


def test_channels_that_differ_by_a_hundred_have_steps_of_their_own() -> None:
    net = Net(x=(1, CHANNELS, 16, 16))
    scales = np.geomspace(0.1, 10, CHANNELS).astype(np.float32)
    net.inputs["x"] *= scales.reshape(1, -1, 1, 1)
    # As trained networks are: what is small counts as much as what is large.
    weights = np.random.default_rng(0).normal(size=(CHANNELS, CHANNELS, 1, 1)) / scales.reshape(1, -1, 1, 1)
    output = net.add("Conv", ["x", net.constant(weights.astype(np.float32))])
    expected = run(net.model(output), net.inputs["x"])

    def error(balance: float) -> float:
        model = net.model(output)
        int8.quantize(model, [net.inputs["x"]], balance=balance)
        return relative_error(expected, run(model, net.inputs["x"]))

    assert error(0.75) < error(0) / 2
    assert error(0.75) < 0.02


def test_what_a_layer_gives_on_average_stays() -> None:
    net = Net(x=(1, CHANNELS, 16, 16))
    output = pointwise(net, "x")
    before, after = net.model(output), net.model(output)
    int8.quantize(after, [net.inputs["x"]])
    expected, found = (run(model, net.inputs["x"]) for model in (before, after))
    # Rounding alone shifts the mean of 256 pixels by some thousandths.
    assert np.abs((found - expected).mean(axis=(0, 2, 3))).max() < 1e-4


def test_what_lies_far_outside_the_calibrated_range_is_the_last_byte() -> None:
    net = Net(x=(1, CHANNELS, 4, 4))
    model = net.model(pointwise(net, "x"))
    int8.quantize(model, [net.inputs["x"]])
    far, farther = (run(model, np.float32(factor) * np.sign(net.inputs["x"])) for factor in (1e3, 1e6))
    np.testing.assert_array_equal(far, farther)


def test_ranges_are_of_all_that_is_calibrated_with() -> None:
    net = Net(x=(1, CHANNELS, 4, 4))
    output = pointwise(net, "x")
    model = net.model(output, any_size=True)
    large = np.random.default_rng(1).normal(size=(1, CHANNELS, 6, 9)).astype(np.float32) * 10
    expected = run(model, large)
    int8.quantize(model, [net.inputs["x"], large])
    assert relative_error(expected, run(model, large)) < 0.02


def test_layers_that_see_the_same_map_share_its_bytes() -> None:
    net = Net(x=(1, CHANNELS, 8, 8))
    model = quantized(net, net.add("Add", [pointwise(net, "x"), pointwise(net, "x")]), expected=2)
    assert kinds(model)["QuantizeLinear"] == 1


def test_a_recognisers_last_layer_sees_the_bytes_of_the_map() -> None:
    classes = int8.MANY
    net = Net(x=(2, CHANNELS, 1, 20))
    rows = net.add("Transpose", [net.add("Squeeze", ["x", net.constant(np.array([2]))])], perm=[0, 2, 1])
    product = net.add("MatMul", [rows, net.weights(CHANNELS, classes)])
    logits = net.add("Add", [product, net.weights(classes)])
    output = net.add("Unsqueeze", [logits, net.constant(np.array([1]))])
    model = quantized(net, output)
    (squeeze,) = (node for node in model.graph.node if node.op_type == "Squeeze")
    assert squeeze.input[0] == "int8_0_numbers"


@pytest.mark.parametrize("what", ["few_channels", "grouped", "computed", "pooled", "small_matrix", "rows_of_others"])
def test_what_costs_little_stays_in_floats(what: str) -> None:
    few = what == "few_channels"
    channels = CHANNELS - 1 if few else CHANNELS
    net = Net(x=(1, channels, 1 if "matrix" in what or "rows" in what else 6, 6))
    if few:
        output = pointwise(net, "x", channels)
    elif what == "grouped":
        weights = net.weights(CHANNELS, 1, 3, 3)
        output = net.add("Conv", ["x", weights], group=CHANNELS, pads=[1, 1, 1, 1])
    elif what == "computed":
        output = net.add("Conv", ["x", net.add("Relu", [net.weights(CHANNELS, CHANNELS, 1, 1)])])
    elif what == "pooled":
        output = net.add("Mul", ["x", pointwise(net, net.add("GlobalAveragePool", ["x"]))])
    else:
        flat = net.add("Squeeze", ["x", net.constant(np.array([2]))])
        rows = net.add("Transpose", [flat], perm=[0, 2, 1])
        small = what == "small_matrix"
        product = net.add("MatMul", [rows, net.weights(CHANNELS, int8.MANY - 1 if small else int8.MANY)])
        # What else takes the rows would lose by their bytes, and gain nothing.
        total = product if small else net.add("Add", [product, net.add("ReduceMean", [rows], axes=[2])])
        output = net.add("Unsqueeze", [total, net.constant(np.array([1]))])
    before, model = net.model(output), net.model(output)
    assert int8.quantize(model, [net.inputs["x"]]) == 0
    assert kinds(model) == kinds(before)
    np.testing.assert_array_equal(run(model, net.inputs["x"]), run(before, net.inputs["x"]))


def test_a_map_that_is_always_zero_stays_zero() -> None:
    net = Net(x=(1, CHANNELS, 4, 4))
    net.inputs["x"][:] = 0
    model = net.model(pointwise(net, "x"))
    assert int8.quantize(model, [net.inputs["x"]]) == 1
    assert not run(model, net.inputs["x"]).any()


def test_an_older_opset_becomes_the_first_that_has_steps_for_channels() -> None:
    net = Net(x=(1, CHANNELS, 4, 6))
    model = quantized(net, pointwise(net, "x"), opset=11)
    assert [entry.version for entry in model.opset_import] == [13]


def test_a_newer_opset_is_refused() -> None:
    net = Net(x=(1, CHANNELS, 4, 6))
    with pytest.raises(GraphError, match="opset 18 takes the axes"):
        int8.quantize(net.model(pointwise(net, "x"), opset=18), [net.inputs["x"]])


def test_only_layers_that_are_named_and_with_a_balance_of_their_own() -> None:
    net = Net(x=(2, CHANNELS, 8, 12))
    scales = np.geomspace(0.1, 10, CHANNELS).astype(np.float32)
    net.inputs["x"] *= scales.reshape(1, -1, 1, 1)
    first = pointwise(net, "x")
    last = pointwise(net, first)
    steps = []
    for balance in (int8.BALANCE, 0):
        model = net.model(last)
        assert int8.quantize(model, [net.inputs["x"]], only={first}, balance=balance) == 1
        (step,) = (numpy_helper.to_array(each) for each in model.graph.initializer if each.name.endswith("_step"))
        steps.append(float(step.max() / step.min()))
    assert steps[0] > 5
    assert steps[1] == 1
