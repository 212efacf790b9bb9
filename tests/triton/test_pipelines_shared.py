"""What the pipelines share, in the real server: knobs, answers, errors and calls to other models."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from embedded_triton import StartTriton, TritonServer
from triton import tiny_models
from triton.counters import settles
from tritonclient import http
from tritonclient.utils import InferenceServerException

# Answers each request as its parameter `do` says.
PIPELINE = """
import asyncio
import json
import numpy as np
from immich_pipelines.bls import TritonSession, call, call_async
from immich_pipelines.errors import BadInput
from immich_pipelines.requests import Request, answer, failure


class TritonPythonModel:
    async def execute(self, requests):
        return await asyncio.gather(*(self.answer(Request(request)) for request in requests))

    async def answer(self, request):
        try:
            return answer(await getattr(self, request.text("do"))(request))
        except Exception as error:
            return failure(error)

    async def knobs(self, request):
        found = {
            "payload": request.payload("IN").decode(),
            "text": request.text("text", "absent"),
            "number": request.number("number", 0.25),
            "count": request.number("count", 7),
            "flag": request.flag("flag", True),
        }
        return self.outputs([json.dumps(found)], np.zeros((1, 1, 2)))

    async def nothing(self, request):
        return self.outputs([], np.zeros((1, 0, 2)))

    async def call(self, request):
        value = np.arange(12, dtype=np.float32).reshape(4, 3)[::2]
        size, double = call("double", {"x": value}, ["size", "double"])
        size, double = await call_async("double", {"x": value}, ["size", "double"])
        session = TritonSession("double", {"x": [None, None]}, {"size": [None], "double": [None, None]}, {"a": "b"})
        again, = session.run(["double"], {"x": value})
        both = session.run(None, {"x": value})
        assert (size == 2).all() and len(both) == 2 and np.array_equal(both[1], again)
        assert session.get_modelmeta().custom_metadata_map == {"a": "b"}
        assert [node.name for node in session.get_inputs() + session.get_outputs()] == ["x", "size", "double"]
        return self.outputs(["called"], (double - value)[None, :, :2])

    async def call_nothing(self, request):
        call("not_there", {"x": np.zeros((1, 1), np.float32)}, ["y"])

    async def call_badly(self, request):
        call("lookup", {"x": np.array([[99]])}, ["y"])

    async def refuse(self, request):
        raise BadInput("the image is blank")

    async def crash(self, request):
        return {}["no such key"]

    def outputs(self, texts, values):
        return {"TEXTS": np.array([texts], dtype=np.object_), "VALUES": np.asarray(values, dtype=np.float32)}
"""

CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_STRING dims: [ -1 ] } ]
output [
  { name: "TEXTS" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "VALUES" data_type: TYPE_FP32 dims: [ -1, 2 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

BATCHED = "dynamic_batching { max_queue_delay_microseconds: 30000000 preferred_batch_size: [ 4 ] }"
"""For the one test that sends just four requests: it does not wait for the delay to be over."""


@pytest.fixture(scope="module")
def server(triton_server: StartTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    models = tmp_path_factory.mktemp("models")
    for name in ("probe", "batched", "double", "lookup"):
        (models / name / "1").mkdir(parents=True)
    for name, batching in (("probe", ""), ("batched", BATCHED)):
        (models / name / "config.pbtxt").write_text(CONFIG + batching)
        (models / name / "1/model.py").write_text(PIPELINE)
    tiny_models.run_size(models / "double/1/model.onnx")
    tiny_models.lookup(models / "lookup/1/model.onnx")
    with triton_server(models) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[Any]:
    client = http.InferenceServerClient(server.url.removeprefix("http://"), concurrency=8)
    yield client
    client.close()


def payload(*values: bytes) -> list[Any]:
    tensor = http.InferInput("IN", [1, len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array([values], dtype=np.object_))
    return [tensor]


def ask(client: Any, do: str, **parameters: str | int | bool) -> Any:
    return client.infer("probe", payload(b"data"), parameters={"do": do, **parameters})


def failure(client: Any, do: str, **parameters: str | int | bool) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        ask(client, do, **parameters)
    return caught.value


def knobs(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.as_numpy("TEXTS")[0, 0])
    return found


def test_knobs_arrive_with_their_types(client: Any) -> None:
    result = ask(client, "knobs", text="ocr_det", number="0.5", count=3, flag=False)

    assert knobs(result) == {"payload": "data", "text": "ocr_det", "number": 0.5, "count": 3.0, "flag": False}


def test_absent_knobs_have_defaults(client: Any) -> None:
    assert knobs(ask(client, "knobs")) == {
        "payload": "data",
        "text": "absent",
        "number": 0.25,
        "count": 7.0,
        "flag": True,
    }


@pytest.mark.parametrize(
    ("value", "meaning"), [("true", True), ("True", True), ("false", False), (1, True), (0, False)]
)
def test_flags_may_be_strings_or_numbers(client: Any, value: str | int, meaning: bool) -> None:
    assert knobs(ask(client, "knobs", flag=value))["flag"] is meaning


@pytest.mark.parametrize("value", ["much", "nan", "inf", ""])
def test_a_number_that_is_none_is_bad_input(client: Any, value: str) -> None:
    error = failure(client, "knobs", number=value)

    assert (error.status(), error.message()) == ("400", f"bad input: parameter number must be a number, got '{value}'")


def test_more_than_one_image_in_a_request_is_bad_input(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="bad input: input IN must hold exactly one element, got 2"):
        client.infer("probe", payload(b"one", b"two"), parameters={"do": "knobs"})


def test_outputs_may_be_empty(client: Any) -> None:
    result = ask(client, "nothing")

    assert result.as_numpy("TEXTS").shape == (1, 0)
    assert result.as_numpy("VALUES").shape == (1, 0, 2)


def test_other_models_can_be_called(client: Any) -> None:
    result = ask(client, "call")

    assert result.as_numpy("VALUES").tolist() == [[[0, 1], [6, 7]]]


@pytest.mark.parametrize(
    ("do", "status", "reason"),
    [
        ("refuse", "400", "bad input: the image is blank"),
        ("crash", "500", "KeyError: 'no such key'"),
        ("call_nothing", "500", "ModelCallError: model not_there failed: "),
        ("call_badly", "500", "ModelCallError: model lookup failed: "),
    ],
)
def test_the_status_tells_whose_fault_it_is(client: Any, do: str, status: str, reason: str) -> None:
    error = failure(client, do)

    assert error.status() == status
    assert error.message().startswith(reason)


def test_requests_of_one_batch_keep_their_own_knobs_and_errors(client: Any) -> None:
    pending = [
        client.async_infer("batched", payload(b"data"), parameters=parameters)
        for parameters in (
            {"do": "knobs", "text": "first"},
            {"do": "refuse"},
            {"do": "crash"},
            {"do": "knobs", "text": "last"},
        )
    ]
    answers = []
    for request in pending:
        try:
            answers.append(knobs(request.get_result())["text"])
        except InferenceServerException as error:
            answers.append(error.status())

    assert answers == ["first", "400", "500", "last"]
    assert settles(lambda: client.get_inference_statistics("batched")["model_stats"][0]["execution_count"], 1)
