from pathlib import Path
from typing import Any

import pytest
from onnxruntime_backend.complete import check, complete, model_file
from onnxruntime_backend.engines import describe
from onnxruntime_backend.settings import ConfigError
from triton import tiny_models


def test_a_config_is_completed_from_the_file(tmp_path: Path) -> None:
    config = {"name": "m", "max_batch_size": 0, "input": [], "output": []}

    complete(config, tiny_models.run_size(tmp_path / "model.onnx"))

    assert config == {
        "name": "m",
        "max_batch_size": 4,
        "dynamic_batching": {},
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [
            # One number a row: [n] in the file, [n, 1] on the wire.
            {"name": "size", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}},
            {"name": "double", "data_type": "TYPE_FP32", "dims": [-1]},
        ],
    }


def test_what_the_config_says_is_kept(tmp_path: Path) -> None:
    inputs = [{"name": "x", "data_type": "TYPE_FP32", "dims": [7]}]
    config = {"max_batch_size": 16, "input": inputs, "output": [], "sequence_batching": {}}

    complete(config, tiny_models.run_size(tmp_path / "model.onnx"))

    assert config["max_batch_size"] == 16
    assert config["input"] is inputs
    assert "dynamic_batching" not in config
    assert config["output"] != []


def test_a_complete_config_is_left_alone(tmp_path: Path) -> None:
    config = {"max_batch_size": 0, "input": [{"name": "x"}], "output": [{"name": "y"}]}

    complete(config, tmp_path / "never-opened.onnx")

    assert config["max_batch_size"] == 0


def test_a_model_of_fixed_size_does_not_batch(tmp_path: Path) -> None:
    path = tiny_models.identity(tmp_path / "model.onnx", shape=(1, 3))
    config: dict[str, Any] = {"max_batch_size": 0}

    complete(config, path)

    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [1, 3]}]
    with pytest.raises(ConfigError, match="does not support batching"):
        complete({"max_batch_size": 8}, path)


def test_the_model_file_can_have_another_name_or_be_a_folder(tmp_path: Path) -> None:
    named = tiny_models.identity(tmp_path / "net.onnx")
    nested = tiny_models.identity(tmp_path / "model.onnx/model.onnx")

    assert model_file(tmp_path, {"default_model_filename": "net.onnx"}) == named
    assert model_file(tmp_path, {"default_model_filename": ""}) == nested


def test_a_missing_file_names_the_script_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unable to find '.*/model.onnx'.*immich-triton export ocr"):
        model_file(tmp_path, {"name": "ocr_det"})


def described(model: Path, **changes: Any) -> dict[str, Any]:
    """Return the completed config of the model that `tiny_models.run_size` makes, with *changes*."""
    config: dict[str, Any] = {"max_batch_size": 8}
    complete(config, model)
    return {**config, **changes}


def test_what_was_completed_describes_the_model(tmp_path: Path) -> None:
    model = tiny_models.run_size(tmp_path / "model.onnx")

    check(described(model), *describe(model))


def test_a_config_may_leave_out_outputs_and_fix_what_is_dynamic(tmp_path: Path) -> None:
    model = tiny_models.run_size(tmp_path / "model.onnx")
    output = {"name": "double", "data_type": "TYPE_FP32", "dims": [7]}

    check(described(model, output=[output]), *describe(model))


def test_a_scalar_is_described_as_one_element(tmp_path: Path) -> None:
    model = tiny_models.identity(tmp_path / "model.onnx", shape=())
    config: dict[str, Any] = {}

    complete(config, model)

    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}]
    check(config, *describe(model))


def tensor(name: str = "x", data_type: str = "TYPE_FP32", dims: tuple[int, ...] = (-1,)) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": list(dims)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input": [tensor("image")]}, "the config has no input 'x'"),
        ({"input": [tensor(), tensor("image")]}, "the model has no input 'image'"),
        ({"output": [tensor("y")]}, "the model has no output 'y' of the config; it has double, size"),
        ({"input": [tensor(data_type="TYPE_FP16")]}, "TYPE_FP16 in the config and TYPE_FP32 in the model"),
        (
            {"input": [tensor(dims=(-1, 3))]},
            r"\[-1, -1, 3\] in the config, batch axis included, \[-1, -1\] in the model",
        ),
        ({"max_batch_size": 0}, r"\[-1\] in the config, \[-1, -1\] in the model"),
    ],
)
def test_a_config_that_contradicts_the_model_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    model = tiny_models.run_size(tmp_path / "model.onnx")

    with pytest.raises(ConfigError, match=reason):
        check(described(model, **changes), *describe(model))


def test_a_fixed_size_cannot_be_widened(tmp_path: Path) -> None:
    model = tiny_models.identity(tmp_path / "model.onnx", shape=("n", 3))
    config = {"max_batch_size": 8, "input": [tensor(dims=(-1,))], "output": [tensor("y", dims=(3,))]}

    with pytest.raises(ConfigError, match=r"input 'x' has shape \[-1, -1\]"):
        check(config, *describe(model))
