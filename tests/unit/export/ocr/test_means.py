"""Means of large maps are taken in two steps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from tiny_net import Net

from immich_triton.export.ocr import means


def shrunk(net: Net, value: str, times: int, channels: int = 4) -> str:
    """Return a map of *channels*, *times* smaller than *value*, the page."""
    size = [times, times]
    return net.add("Conv", [value, net.weights(channels, 3, *size)], kernel_shape=size, strides=size)


def pool(net: Net, output: str) -> tuple[int, onnx.ModelProto]:
    """Pool in steps, expect the same result, and return what `pool_in_steps` does and the graph."""
    before, after = net.model(output, any_size=True), net.model(output, any_size=True)
    changed = means.pool_in_steps(after)
    onnx.checker.check_model(after, full_check=True)
    np.testing.assert_allclose(net.run(after), net.run(before), rtol=1e-4, atol=1e-5)
    return changed, after


@pytest.mark.parametrize(("times", "window"), [(4, 8), (8, 4)])
def test_a_window_is_what_the_smallest_page_leaves(times: int, window: int) -> None:
    net = Net(page=(1, 3, 64, 96))
    changed, model = pool(net, net.add("GlobalAveragePool", [shrunk(net, "page", times)]))
    assert changed == 1
    (windows,) = (node for node in model.graph.node if node.op_type == "AveragePool")
    assert {each.name: list(each.ints) for each in windows.attribute} == {
        "kernel_shape": [window, window],
        "strides": [window, window],
    }


def test_a_small_map_is_pooled_as_it_was() -> None:
    net = Net(page=(1, 3, 64, 96))
    changed, model = pool(net, net.add("GlobalAveragePool", [shrunk(net, "page", 16)]))
    assert changed == 0
    assert [node.op_type for node in model.graph.node] == ["Conv", "GlobalAveragePool"]


def test_maps_of_several_sizes_and_what_else_takes_them() -> None:
    net = Net(page=(1, 3, 32, 64))
    large, small = shrunk(net, "page", 4), shrunk(net, "page", 16)
    products = [net.add("Mul", [value, net.add("GlobalAveragePool", [value])]) for value in (large, small)]
    joint = net.add("Concat", [net.add("GlobalAveragePool", [value]) for value in products], axis=1)
    changed, model = pool(net, joint)
    assert changed == 2, "the two means of the large map"
    assert sum(node.op_type == "AveragePool" for node in model.graph.node) == 2


def test_a_network_without_means_stays() -> None:
    net = Net(page=(1, 3, 32, 32))
    assert pool(net, shrunk(net, "page", 4))[0] == 0
