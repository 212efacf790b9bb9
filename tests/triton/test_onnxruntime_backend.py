import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedded_triton import StartTriton, TritonServer
from triton import tiny_models
from triton.counters import settles
from triton.tiny_models import Array, config
from tritonclient import http
from tritonclient.utils import InferenceServerException

from harness.program import eventually
from immich_triton.server import processes
from immich_triton.server.processes import arguments

PATIENCE = 30_000_000
"""Microseconds that the batcher waits for more requests. Nobody waits so long: the tests fill their batches."""


def onnx_file(models: Path, name: str, text: str | None = None) -> Path:
    (models / name / "1").mkdir(parents=True)
    if text is not None:
        (models / name / "config.pbtxt").write_text(text)
    return models / name / "1/model.onnx"


@pytest.fixture(scope="module")
def server(triton_server: StartTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    models = tmp_path_factory.mktemp("models")
    tiny_models.run_size(onnx_file(models, "no_config"))
    tiny_models.run_size(onnx_file(models, "joined", config(delay=PATIENCE)))
    tiny_models.lookup(onnx_file(models, "lookup", config(delay=PATIENCE)))
    tiny_models.identity(onnx_file(models, "strings", config()), tiny_models.STRING, ("n", 1))
    tiny_models.identity(onnx_file(models, "halves", config()), tiny_models.HALF)
    tiny_models.two_layers(onnx_file(models, "split", config()), external_data=True)
    tiny_models.convolution(onnx_file(models, "on_openvino", config(embedded_accelerator="openvino")))
    tiny_models.convolution(onnx_file(models, "wide", config(embedded_accelerator="openvino")), channels=64)
    tiny_models.convolution(onnx_file(models, "on_onnxruntime", config()))
    tiny_models.convolution(onnx_file(models, "shaped", config(shapes="1x3x8x8 4x3x8x8 2x3x8x16")))
    tiny_models.identity(onnx_file(models, "wrong_shapes", config(shapes="8x4")))
    tiny_models.identity(onnx_file(models, "two_nice", config(count=2, nice="7")))
    renamed = onnx_file(models, "renamed", config(extra='default_model_filename: "net.onnx"'))
    tiny_models.identity(renamed.with_name("net.onnx"))
    tiny_models.identity(onnx_file(models, "unknown_key", config(threads="2")))
    tiny_models.identity(onnx_file(models, "wrong_value", config(execution_mode="7")))
    tiny_models.identity(onnx_file(models, "fixed_batch", config()), shape=(1, 3))
    wrong_input = 'input [ { name: "image" data_type: TYPE_FP32 dims: [ 3 ] } ]'
    tiny_models.identity(onnx_file(models, "wrong_input", config(extra=wrong_input)))
    onnx_file(models, "ocr_det", config())
    onnx_file(models, "damaged", config()).write_bytes(b"no protobuf")
    with triton_server(models) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[Any]:
    client = http.InferenceServerClient(server.url.removeprefix("http://"), concurrency=8)
    yield client
    client.close()


def tensors(values: Mapping[str, Array]) -> list[Any]:
    inputs = []
    for name, value in values.items():
        kind = {"f4": "FP32", "f2": "FP16", "i8": "INT64"}.get(value.dtype.str[1:], "BYTES")
        inputs.append(http.InferInput(name, list(value.shape), kind))
        inputs[-1].set_data_from_numpy(value)
    return inputs


def infer(client: Any, model: str, output: str = "y", **values: Array) -> Array:
    result: Array = client.infer(model, tensors(values)).as_numpy(output)
    return result


def counts(client: Any, model: str) -> tuple[int, int]:
    """Return the rows computed and the runs that it took."""
    (statistics,) = client.get_inference_statistics(model)["model_stats"]
    return statistics["inference_count"], statistics["execution_count"]


def load_error(server: TritonServer, model: str) -> str:
    """Return why *model* is not loaded, as Triton's repository index says it."""
    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    (entry,) = [entry for entry in client.get_model_repository_index() if entry["name"] == model]
    assert entry["state"] == "UNAVAILABLE"
    client.close()
    reason: str = entry["reason"]
    return reason


def test_a_model_without_a_config_is_completed_from_its_file(client: Any) -> None:
    completed = client.get_model_config("no_config")

    assert (completed["backend"], completed["runtime"]) == ("onnxruntime", "model.py")
    assert completed["max_batch_size"] == 4
    assert "dynamic_batching" in completed
    assert [(entry["name"], entry["data_type"], entry["dims"]) for entry in completed["output"]] == [
        ("size", "TYPE_INT64", [1]),
        ("double", "TYPE_FP32", [-1]),
    ]
    value = np.array([[1, 2], [3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(infer(client, "no_config", "double", x=value), 2 * value)
    assert infer(client, "no_config", "size", x=value).tolist() == [[2], [2]]


def test_a_network_gives_the_memory_of_a_large_image_back_when_it_rests(server: TritonServer, client: Any) -> None:
    (process,) = [pid for pid in processes.tree(server.pid) if any("/wide/" in part for part in arguments(pid))]

    def held() -> int:
        sizes = processes.rollup(process)
        return sizes[2] if sizes else 0

    def takes() -> int:
        infer(client, "wide", x=np.ones((1, 3, 512, 512), np.float32))
        return held() - before

    before, large = held(), 60 << 20
    for _ in range(2):  # it takes the memory again when it needs it
        assert eventually(lambda: takes() > large), "on a busy machine it may rest before we look"
        assert eventually(lambda: held() - before < large / 2, 30)


def test_waiting_requests_become_one_run_and_the_counters_show_it(client: Any) -> None:
    values = [np.full((rows, 3), rows, dtype=np.float32) for rows in (1, 3, 2, 2)]

    pending = [client.async_infer("joined", tensors({"x": value})) for value in values]
    results = [request.get_result() for request in pending]

    for value, result in zip(values, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("double"), 2 * value)
        assert result.as_numpy("size").tolist() == [[8]] * len(value)
    # Nobody else asks this model.
    assert settles(lambda: counts(client, "joined"), (8, 1))


def test_a_bad_request_does_not_fail_its_neighbours(client: Any) -> None:
    indices = [[1, 0], [2, 3], [99, 0], [0, 1]]

    pending = [client.async_infer("lookup", tensors({"x": np.array(index)[:, None]})) for index in indices]

    for index, request in zip(indices, pending, strict=True):
        if 99 in index:
            with pytest.raises(InferenceServerException, match="99"):
                request.get_result()
        else:
            np.testing.assert_array_equal(request.get_result().as_numpy("y")[:, 0], 2 * np.array(index))
    # Nobody else asks this model.
    assert settles(lambda: counts(client, "lookup")[1], 1)


def test_only_the_outputs_asked_for_are_returned(client: Any) -> None:
    value = {"x": np.ones((1, 2), dtype=np.float32)}

    result = client.infer("no_config", tensors(value), outputs=[http.InferRequestedOutput("size")])

    assert [output["name"] for output in result.get_response()["outputs"]] == ["size"]


def test_strings_are_utf8(client: Any) -> None:
    value = np.array([["发票".encode()], [b""]], dtype=np.object_)

    np.testing.assert_array_equal(infer(client, "strings", x=value), value)
    with pytest.raises(InferenceServerException, match="not valid UTF-8") as caught:
        infer(client, "strings", x=np.array([[b"\xff"]], dtype=np.object_))
    assert caught.value.status() == "400"


def test_half_precision(client: Any) -> None:
    value = np.array([[0.5, 65504, -1]], dtype=np.float16)

    result = infer(client, "halves", x=value)

    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, value)


def test_external_data_and_other_file_names(client: Any) -> None:
    assert infer(client, "split", x=np.ones((3, 64), dtype=np.float32)).shape == (3, 64)
    assert infer(client, "renamed", x=np.ones((1, 3), dtype=np.float32)).tolist() == [[1, 1, 1]]


def test_openvino_gives_onnx_runtimes_results(client: Any) -> None:
    random = np.random.default_rng(3)
    for height, width in [(32, 48), (64, 40)]:
        image = random.standard_normal((2, 3, height, width)).astype(np.float32)

        result = infer(client, "on_openvino", x=image)

        np.testing.assert_allclose(result, infer(client, "on_onnxruntime", x=image), atol=1e-4)


def test_a_model_with_shapes_gives_the_results_of_one_without(server: TritonServer, client: Any) -> None:
    random = np.random.default_rng(4)
    for count, height, width in [(1, 8, 8), (3, 8, 8), (6, 8, 8), (1, 8, 16), (2, 12, 8)]:
        image = random.standard_normal((count, 3, height, width)).astype(np.float32)

        result = infer(client, "shaped", x=image)

        np.testing.assert_allclose(result, infer(client, "on_onnxruntime", x=image), atol=1e-4)
    served = re.compile(r"model shaped: served by .* on CPU, \d+ threads, 3 shapes")
    assert eventually(lambda: served.search(server.log) is not None)


def test_each_instance_is_a_process_with_the_niceness_of_the_config(server: TritonServer) -> None:
    nice = [stat for stat in stubs(server) if stat == 7]

    assert len(nice) == 2


def stubs(server: TritonServer) -> list[int]:
    """Return the niceness of each model process of *server*."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            # See proc(5): after the name in brackets, the fields from `state` (3) on; nice is field 19, parent field 4.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"triton_python_backend_stub" in command and int(fields[1]) == server.pid:
            found.append(int(fields[16]))
    return found


def test_an_unknown_parameter_is_a_warning(server: TritonServer, client: Any) -> None:
    assert client.is_model_ready("unknown_key")
    warning = "model unknown_key: parameter 'threads' is unknown and has no effect"
    assert eventually(lambda: warning in server.log)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("wrong_value", "'execution_mode' must be a whole number from 0 to 1, got '7'"),
        ("fixed_batch", "model does not support batching while non-zero max_batch_size is specified"),
        ("wrong_input", "the config has no input 'x', which the model needs"),
        ("wrong_shapes", "parameter 'shapes' names 8x4, but the model's input 'x' takes [-1, 3]"),
        ("ocr_det", "immich-triton export ocr"),
        ("damaged", "Protobuf parsing failed"),
    ],
)
def test_what_keeps_a_model_from_loading_is_said_in_one_line(server: TritonServer, model: str, reason: str) -> None:
    first, *rest = load_error(server, model).split("\n")

    assert f"model {model}: " in first
    assert reason in first
    # Triton itself adds where in model.py the error came from.
    assert all("model.py" in line for line in rest if line and line != "At:")


def test_a_model_is_freed_when_it_is_unloaded(server: TritonServer, client: Any) -> None:
    before = len(stubs(server))

    client.unload_model("renamed")

    assert eventually(lambda: not client.is_model_ready("renamed") and len(stubs(server)) == before - 1)
    client.load_model("renamed")
    assert infer(client, "renamed", x=np.ones((1, 3), dtype=np.float32)).tolist() == [[1, 1, 1]]
