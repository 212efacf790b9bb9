"""The neck of a DBNet does the same before its maps are enlarged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from tiny_net import Net

from immich_triton.export.ocr import dbnet_neck

Array = npt.NDArray[Any]


class Neck(Net):
    """Maps of 4 channels, and what a neck does with them."""

    def enlarged(self, value: str, times: int, **ways: Any) -> str:
        ways = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} | ways
        return self.add("Resize", [value, self.constant(np.zeros(0, np.float32)), self.scales(times)], **ways)

    def scales(self, times: int) -> str:
        return self.constant(np.array([1, 1, times, times], np.float32))

    def excited(self, value: str, channels: int) -> str:
        mean = self.add("GlobalAveragePool", [value])
        inner = self.add("Relu", [self.add("Conv", [mean, self.weights(channels, channels, 1, 1)])])
        product = self.add("Mul", [value, self.add("HardSigmoid", [inner])])
        return self.add("Add", [value, product])

    def convolved(self, value: str, channels: int, **attributes: Any) -> str:
        ways = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} | attributes
        return self.add("Conv", [value, self.weights(3, channels, 3, 3)], **ways)

    def fold(self, output: str) -> tuple[int, onnx.ModelProto]:
        """Fold the neck, expect the same result, and return what `fold_neck` does and the graph."""
        before, after = self.model(output), self.model(output)
        folded = dbnet_neck.fold_neck(after)
        onnx.checker.check_model(after, full_check=True)
        np.testing.assert_allclose(self.run(after), self.run(before), rtol=1e-4, atol=1e-4)
        return folded, after


def kernels(model: onnx.ModelProto) -> set[tuple[int, ...]]:
    """Return the sizes of all kernels that are constants."""
    sizes = {tensor.name: tuple(tensor.dims[2:]) for tensor in model.graph.initializer}
    convolutions = (node for node in model.graph.node if node.op_type == "Conv")
    return {sizes[node.input[1]] for node in convolutions if node.input[1] in sizes}


def test_a_map_and_an_enlarged_one_are_convolved_before_they_are_added() -> None:
    net = Neck(large=(1, 4, 6, 10), small=(1, 4, 3, 5))
    joint = net.add("Add", ["large", net.enlarged("small", 2)])
    folded, model = net.fold(net.convolved(joint, 4))
    assert folded == 1
    assert "Resize" not in {node.op_type for node in model.graph.node}
    assert kernels(model) == {(2, 2), (3, 3)}


def test_maps_of_four_sizes_side_by_side() -> None:
    net = Neck(p5=(1, 4, 2, 3), p4=(1, 4, 4, 6), p3=(1, 4, 8, 12), p2=(1, 4, 16, 24))
    maps = [net.enlarged("p5", 8), net.enlarged("p4", 4), net.enlarged("p3", 2), "p2"]
    folded, model = net.fold(net.convolved(net.add("Concat", maps, axis=1), 16))
    assert folded == 1
    # What was enlarged to full size is enlarged to half of it.
    assert sum(node.op_type == "Resize" for node in model.graph.node) == 2


def test_what_excites_a_map_goes_into_the_weights_and_so_does_what_widens_it() -> None:
    net = Neck(page=(1, 3, 6, 10), small=(1, 4, 3, 5))
    wide = net.add("Conv", ["page", net.weights(4, 3, 1, 1)], kernel_shape=[1, 1])
    joint = net.add("Add", [net.excited(wide, 4), net.enlarged("small", 2)])
    folded, model = net.fold(net.convolved(joint, 4))
    assert folded == 1
    pools = [node for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    assert [node.input[0] for node in pools] == ["page"]
    takers = [node.op_type for node in model.graph.node if "page" in node.input]
    assert sorted(takers) == ["Conv", "GlobalAveragePool"], "no map of four channels is made of the page"


def test_an_excited_map_that_nothing_widens_is_taken_as_it_is() -> None:
    net = Neck(page=(1, 4, 6, 10), small=(1, 4, 3, 5))
    joint = net.add("Add", [net.excited("page", 4), net.enlarged("small", 2)])
    folded, model = net.fold(net.convolved(joint, 4))
    assert folded == 1
    assert [node.input[0] for node in model.graph.node if node.op_type == "GlobalAveragePool"] == ["page"]


def test_weights_made_for_one_page_take_no_batch() -> None:
    net = Neck(page=(2, 4, 6, 10), small=(2, 4, 3, 5))
    joint = net.add("Add", [net.excited("page", 4), net.enlarged("small", 2)])
    output = net.convolved(joint, 4)
    model = net.model(output)
    dbnet_neck.fold_neck(model)
    with pytest.raises(Exception, match="Incompatible dimensions"):
        net.run(model)


@pytest.mark.parametrize(
    "change",
    [
        {"strides": [2, 2]},
        {"pads": [0, 0, 0, 0]},
        {"dilations": [2, 2], "pads": [1, 1, 1, 1]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_convolution_stays_as_it_is(change: dict[str, list[int]]) -> None:
    net = Neck(large=(1, 4, 6, 10), small=(1, 4, 3, 5))
    joint = net.add("Add", ["large", net.enlarged("small", 2)])
    assert net.fold(net.convolved(joint, 4, **change))[0] == 0


@pytest.mark.parametrize(
    "ways",
    [{"mode": "linear"}, {"coordinate_transformation_mode": "half_pixel"}, {"nearest_mode": "ceil"}],
    ids=lambda ways: next(iter(ways)),
)
def test_another_way_to_enlarge_stays_as_it_is(ways: dict[str, str]) -> None:
    net = Neck(large=(1, 4, 6, 10), small=(1, 4, 3, 5))
    joint = net.add("Add", ["large", net.enlarged("small", 2, **ways)])
    assert net.fold(net.convolved(joint, 4))[0] == 0


def test_a_sum_that_others_take_as_well_stays() -> None:
    net = Neck(large=(1, 4, 6, 10), small=(1, 4, 3, 5))
    joint = net.add("Add", ["large", net.enlarged("small", 2)])
    output = net.add("Concat", [net.convolved(joint, 4), joint], axis=1)
    assert net.fold(output)[0] == 0


def widened_and_shared(net: Neck, seen: int) -> str:
    """Return what two convolutions make of one sum: of 8 channels made of *seen*, and of an enlarged map."""
    wide = net.add("Conv", ["page", net.weights(8, seen, 1, 1)], kernel_shape=[1, 1])
    joint = net.add("Add", [net.excited(wide, 8), net.enlarged("small", 2)])
    return net.add("Concat", [net.convolved(joint, 8), joint], axis=1)


def test_a_sum_that_others_take_is_made_beside_its_parts_where_these_are_few_channels() -> None:
    net = Neck(page=(1, 2, 6, 10), small=(1, 8, 3, 5))
    folded, model = net.fold(widened_and_shared(net, 2))
    assert folded == 1
    assert kernels(model) == {(1, 1), (2, 2)}, "and the kernels that see the page are made for it"
    assert "Resize" in {node.op_type for node in model.graph.node}, "the sum is there for others"


def test_parts_of_nearly_as_many_channels_are_not_worth_it() -> None:
    net = Neck(page=(1, 3, 6, 10), small=(1, 8, 3, 5))
    assert net.fold(widened_and_shared(net, 3))[0] == 0
