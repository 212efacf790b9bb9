"""Sessions of networks where these are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_net import Net

from immich_triton.export.sessions import cpu_session


def test_a_model_in_memory_and_one_in_a_file_compute_the_same(tmp_path: Path) -> None:
    net = Net(x=(1, 2, 3, 4))
    model = net.model(net.add("Relu", ["x"]))
    onnx.save(model, tmp_path / "model.onnx")
    expected = np.maximum(net.inputs["x"], 0)
    for given in (model.SerializeToString(), tmp_path / "model.onnx"):
        session = cpu_session(given)
        assert session.get_providers() == ["CPUExecutionProvider"]
        np.testing.assert_array_equal(session.run(None, net.inputs)[0], expected)


def test_a_model_taken_as_written_keeps_its_pairs_of_quantisation_apart() -> None:
    net = Net(x=(1, 2, 3, 4))
    model = net.model(net.add("Relu", ["x"])).SerializeToString()
    key = "session.disable_quant_qdq"
    assert cpu_session(model, as_written=True).get_session_options().get_session_config_entry(key) == "1"
    with pytest.raises(RuntimeError, match=key):
        cpu_session(model).get_session_options().get_session_config_entry(key)
