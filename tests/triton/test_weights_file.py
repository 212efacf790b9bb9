"""Weights in a file beside a model are those that it was exported with, or it is not loaded: no fingerprint lies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime_backend.engines import load_engine
from onnxruntime_backend.settings import ConfigError, Settings

from immich_pipelines.onnx_metadata import WEIGHTS_FILE
from immich_triton.export import onnx_graph, weights_beside

ONES = np.ones((2, 2), np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that multiplies by ones, which lie in a file beside it."""
    path = tmp_path / "model.onnx"
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(ONES, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(proto, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    weights_beside.tie(path)
    return path


def forget_weights(model: Path) -> None:
    """Have *model* name no file of weights, as exports did at first."""
    proto = onnx.load(model, load_external_data=False)
    del proto.metadata_props[:]
    model.write_bytes(proto.SerializeToString())


def product(model: Path, engine: str = "onnxruntime") -> list[float]:
    loaded = load_engine(model, Settings(engine=engine, intra_op_threads=1))  # type: ignore[arg-type]
    (value,) = loaded.run(["y"], {"x": np.array([[1, 2]], np.float32)})
    return [float(number) for number in value[0]]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_model_with_its_own_weights_is_loaded(model: Path, engine: str) -> None:
    said = onnx_graph.metadata(onnx.load(model, load_external_data=False))
    assert said[WEIGHTS_FILE] == hashlib.sha256(ONES.tobytes()).hexdigest()
    assert product(model, engine) == [3, 3]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_model_and_weights_may_be_links(model: Path, tmp_path: Path, engine: str) -> None:
    (tmp_path / "links").mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / "links" / name).symlink_to(model.with_name(name))
    assert product(tmp_path / "links/model.onnx", engine) == [3, 3]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_of_another_export_are_refused(model: Path, engine: str) -> None:
    model.with_name("model.onnx.data").write_bytes((2 * ONES).tobytes())
    with pytest.raises(ConfigError, match="has other weights than"):
        product(model, engine)


@pytest.mark.parametrize("named", [True, False], ids=["named", "of an earlier export"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_that_are_written_over_give_no_answer_any_more(model: Path, engine: str, named: bool) -> None:
    """``cp`` onto the file of a model that runs: the engine sees other weights under the same fingerprint."""
    if not named:
        forget_weights(model)
    loaded = load_engine(model, Settings(engine=engine, intra_op_threads=1))  # type: ignore[arg-type]
    x = {"x": np.array([[1, 2]], np.float32)}
    assert loaded.run(["y"], x)[0].tolist() == [[3, 3]]
    data = model.with_name("model.onnx.data")
    with data.open("r+b") as file:
        file.write((2 * ONES).tobytes())
    os.utime(data, ns=(1, 1))  # as ``cp --preserve`` sets it
    with pytest.raises(RuntimeError, match="was written into after it was loaded; load the model again"):
        loaded.run(["y"], x)
    loaded.close()


def test_another_file_in_its_place_changes_nothing(model: Path) -> None:
    """An export brings new files; the model that runs has mapped the old one."""
    loaded = load_engine(model, Settings(intra_op_threads=1))
    model.with_name("new").write_bytes((2 * ONES).tobytes())
    model.with_name("new").replace(model.with_name("model.onnx.data"))
    assert loaded.run(["y"], {"x": np.array([[1, 2]], np.float32)})[0].tolist() == [[3, 3]]


def test_an_earlier_export_names_no_file_and_is_loaded(model: Path) -> None:
    forget_weights(model)
    assert product(model) == [3, 3]


def test_weights_within_the_model_need_no_word_of_it(model: Path) -> None:
    whole = onnx.load(model)
    del whole.metadata_props[:]
    onnx.save_model(whole, model)
    model.with_name("model.onnx.data").unlink()
    weights_beside.tie(model)
    assert list(onnx.load(model).metadata_props) == []
    assert product(model) == [3, 3]


TABLE = np.arange(4096 * 64, dtype=np.float32).reshape(4096, 64)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_was_read_of_a_file_of_weights_leaves_memory_at_rest(tmp_path: Path, engine: str) -> None:
    """A text encoder looks up the rows of its words: those pages are not kept."""
    path = tmp_path / "model.onnx"
    graph = helper.make_graph(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        "table",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(TABLE, "w")],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    weights_beside.put_beside(path)
    loaded = load_engine(path, Settings(engine=engine, intra_op_threads=1))  # type: ignore[arg-type]
    rows = np.arange(0, 4096, 16)
    for _ in range(2):
        (value,) = loaded.run(["y"], {"x": rows})
        assert np.array_equal(value, TABLE[rows])
        loaded.release()
        assert resident(weights_beside.data_of(path)) == 0


def resident(path: Path) -> int:
    """Return the bytes of the mapped file *path* that are in this process's memory."""
    _, *mappings = Path("/proc/self/smaps").read_text().split(str(path))
    assert mappings, "it is mapped, not read"
    return sum(int(mapping.split("Rss:", 1)[1].split()[0]) for mapping in mappings) * 1024
