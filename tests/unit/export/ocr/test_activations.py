"""What layers see is measured over all inputs, whatever sizes these have."""

from __future__ import annotations

import numpy as np
from tiny_net import Net

from immich_triton.export.ocr.activations import Steps, mean_bytes, ranges

random = np.random.default_rng(5)


def test_ranges_and_means_of_maps_of_several_sizes() -> None:
    net = Net(x=(1, 3, 2, 2))
    doubled = net.add("Add", ["x", "x"])
    model = net.model(net.add("Relu", [doubled]), any_size=True)
    inputs = [random.normal(size=(1, 3, *size)).astype(np.float32) for size in ((2, 2), (1, 5), (4, 3))]
    (seen,) = ranges(model, [doubled], inputs).values()
    pixels = 2 * np.concatenate([each.reshape(3, -1) for each in inputs], axis=1)
    np.testing.assert_allclose(seen.low, pixels.min(axis=1), rtol=1e-6)
    np.testing.assert_allclose(seen.high, pixels.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(seen.mean, pixels.mean(axis=1), rtol=1e-5, atol=1e-6)
    assert not seen.single


def test_a_pooled_map_is_a_single_pixel() -> None:
    net = Net(x=(1, 3, 4, 4))
    pooled = net.add("GlobalAveragePool", ["x"])
    model = net.model(net.add("Relu", [pooled]))
    assert ranges(model, ["x", pooled], [net.inputs["x"]])[pooled].single
    assert not ranges(model, ["x", pooled], [net.inputs["x"]])["x"].single


def test_mean_bytes_count_rounding_and_clipping() -> None:
    net = Net(x=(1, 2, 1, 4))
    net.inputs["x"][:] = np.array([[-1, 0, 0.26, 900], [0, 1, 2, 3]]).reshape(1, 2, 1, 4)
    model = net.model(net.add("Relu", ["x"]))
    steps = {"x": Steps(np.array([0.5, 1], np.float32), np.array([2, 0], np.uint8))}
    (mean,) = mean_bytes(model, steps, [net.inputs["x"]]).values()
    np.testing.assert_allclose(mean, [(0 + 2 + 3 + 255) / 4, 1.5])


def test_the_model_stays_as_it_is() -> None:
    net = Net(x=(1, 2, 4, 4))
    model = net.model(net.add("Relu", ["x"]))
    before = model.SerializeToString()
    ranges(model, ["x"], [net.inputs["x"]])
    assert model.SerializeToString() == before
