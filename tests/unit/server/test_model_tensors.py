"""What an ONNX file takes and gives, against what its config says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from immich_triton.server.model_tensors import Graph, Tensor, TensorError, read

GOOD = """
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 3, -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 512 ] } ]
"""


def graph(batch: int = -1) -> Graph:
    return Graph(
        {"IN": Tensor("TYPE_FP32", (batch, 3, -1))},
        {"OUT": Tensor("TYPE_FP32", (batch, 512)), "MORE": Tensor("TYPE_INT64", None)},
        None,
    )


def differences(config: str, of: Graph | None = None) -> list[str]:
    return [*(of or graph()).differences(text_format.Parse(config, model_config_pb2.ModelConfig()))]


def test_what_fits_and_what_is_left_out_is_well() -> None:
    assert differences(GOOD) == []
    assert differences("max_batch_size: 8") == []
    assert differences('max_batch_size: 8 output [ { name: "MORE" data_type: TYPE_INT64 dims: [ 1, 2 ] } ]') == []


def test_a_fixed_length_may_be_stated_where_the_file_leaves_it_open() -> None:
    assert differences(GOOD.replace("[ 3, -1 ]", "[ 3, 224 ]")) == []


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('"IN"', '"IMAGE"', "the file needs the input IN"),
        ('"OUT"', '"EMBEDDING"', "states the output EMBEDDING; the file has MORE, OUT"),
        ("TYPE_FP32 dims: [ 512 ]", "TYPE_FP16 dims: [ 512 ]", "output OUT is TYPE_FP16 in config.pbtxt, TYPE_FP32"),
        ("[ 512 ]", "[ 768 ]", r"output OUT has dims \[768\] in config.pbtxt, \[512\] in the file"),
        ("[ 512 ]", "[ -1 ]", r"output OUT has dims \[-1\]"),
        ("[ 3, -1 ]", "[ 3 ]", r"input IN has dims \[3\]"),
        ("max_batch_size: 8", "max_batch_size: 0", r"input IN has dims \[3, -1\] in config.pbtxt, \[-1, 3, -1\]"),
    ],
)
def test_what_does_not_fit_is_told(before: str, after: str, problem: str) -> None:
    found = differences(GOOD.replace(before, after))
    assert found
    assert re.search(problem, "\n".join(found)), found


def test_a_file_with_a_fixed_batch_takes_no_other() -> None:
    assert differences(GOOD, graph(batch=8)) == []
    assert "input IN takes batches of 1 only, but max_batch_size is 8" in differences(GOOD, graph(batch=1))


def test_a_shape_that_triton_changes_on_the_way_is_not_compared() -> None:
    config = GOOD.replace("dims: [ 512 ]", "dims: [ 1 ] reshape { shape: [ 512 ] }")
    assert differences(config) == []


def saved(path: Path, *, external: bool = False, fingerprint: int = 7) -> Path:
    nodes = [
        helper.make_node("MatMul", ["IN", "weights"], ["EMBEDDING"]),
        helper.make_node("Shape", ["IN"], ["shape"]),
        helper.make_node("Expand", ["number", "shape"], ["FINGERPRINT"]),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("IN", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_value_info("EMBEDDING", TensorProto.FLOAT, ["N", 8]),
            helper.make_tensor_value_info("FINGERPRINT", TensorProto.INT64, ["N", 1]),
        ],
        [
            numpy_helper.from_array(np.zeros((4, 8), np.float32), "weights"),
            numpy_helper.from_array(np.array([[fingerprint]], np.int64), "number"),
        ],
    )
    model = helper.make_model(made)
    onnx.save_model(model, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


def test_a_file_is_read_without_its_weights(tmp_path: Path) -> None:
    found = read(saved(tmp_path / "model.onnx"))
    assert found.inputs == {"IN": Tensor("TYPE_FP32", (-1, 4))}
    assert found.outputs["EMBEDDING"] == Tensor("TYPE_FP32", (-1, 8))
    assert (found.vector_size(), found.fingerprint) == (8, 7)


def test_an_embedding_is_the_output_of_that_name_or_the_only_one() -> None:
    assert Graph({}, {"fc1": Tensor("TYPE_FP32", (-1, 512))}, None).vector_size() == 512
    assert Graph({}, {"a": Tensor("TYPE_FP32", (-1, 512)), "b": Tensor("TYPE_FP32", (-1, 2))}, None).vector_size() == 0
    assert Graph({}, {"EMBEDDING": Tensor("TYPE_FP32", (-1, -1))}, None).vector_size() == 0


def test_external_weights_must_be_beside_it_and_whole(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", external=True)
    read(path)
    weights = tmp_path / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:16])
    with pytest.raises(TensorError, match=r"weights.bin has 16 bytes, model.onnx needs \d+: it was cut off"):
        read(path)
    weights.unlink()
    with pytest.raises(TensorError, match=r"needs weights.bin beside it, which is missing"):
        read(path)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", external=True)
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"../etc/pass"))
    with pytest.raises(TensorError, match="which is not in its folder"):
        read(path)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08"])
def test_what_is_no_model_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(TensorError, match="no ONNX model"):
        read(tmp_path / "model.onnx")
