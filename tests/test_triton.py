"""The client of Triton: deadlines, retries, the gate, and which error says what."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web

from immich_triton.routes import Pipeline
from immich_triton.triton import ATTEMPTS, BadInput, Call, ServerFault, TritonClient, Unavailable

PIPELINE = Pipeline("clip_text", ("textual",), ("encoder",), {"encoder": "encoder"})
CALL = Call(PIPELINE, "TEXT", b"query", ("EMBEDDING",), {"extra": 1})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def inference(tensor: np.ndarray[tuple[int, ...], np.dtype[np.float32]], name: str = "EMBEDDING") -> web.Response:
    """Answer as Triton does: a JSON header, then the tensor."""
    data = tensor.tobytes()
    output = {
        "name": name,
        "datatype": "FP32",
        "shape": list(tensor.shape),
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"model_name": "clip_text", "model_version": "1", "outputs": [output]}).encode()
    return web.Response(
        body=head + data,
        headers={"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"},
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in this event loop."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody would set an event
            await asyncio.sleep(0.01)


GOOD = np.array([[0.5, -0.25]], np.float32)


class FaultyTriton:
    """A server that speaks Triton's protocol and fails as it is told to; the real one cannot be made to."""

    def __init__(self, *answers: Handler) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.ready = True
        self.asked: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/ready"):
            self.asked.append(request.path.split("/")[3])
            return web.Response(status=200 if self.ready else 400)
        if not request.path.endswith("/infer"):
            return web.Response(status=404)
        self.requests.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@asynccontextmanager
async def serving(triton: FaultyTriton, port: int = 0) -> AsyncIterator[FaultyTriton]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", triton.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    triton.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield triton
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_of(triton: FaultyTriton, call_timeout: float = 60.0) -> AsyncIterator[TritonClient]:
    client = TritonClient(triton.url, timeout=call_timeout)
    try:
        yield client
    finally:
        await client.close()


async def good(_: web.Request) -> web.StreamResponse:
    return inference(GOOD)


def status(code: int, error: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=code)

    return handler


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.close()
    return web.Response()


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def test_sends_payload_and_parameters_and_returns_tensors() -> None:
    async with serving(FaultyTriton(good)) as triton, client_of(triton) as client:
        answer = await client.infer(CALL, deadline=60)
    assert answer["EMBEDDING"].tolist() == [[0.5, -0.25]]
    (request,) = triton.requests
    head = json.loads(request[: request.rindex(b"}") + 1])
    assert (head["parameters"]["encoder"], head["parameters"]["extra"]) == ("encoder", 1)
    assert request.endswith(b"query")


async def test_bad_input_is_told_apart_and_never_retried() -> None:
    refuse = status(400, "in ensemble: bad input: the image is empty (0 bytes)")
    async with serving(FaultyTriton(refuse)) as triton, client_of(triton) as client:
        with pytest.raises(BadInput, match=r"^the image is empty \(0 bytes\)$"):
            await client.infer(CALL, deadline=60)
        assert client.gate(PIPELINE).is_open
    assert len(triton.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [status(500, "model encoder failed"), status(400, "Request for unknown model: 'clip_text' is not found"), cut],
    ids=["500", "unknown model", "cut connection"],
)
async def test_a_fault_of_the_server_is_retried(fault: Handler) -> None:
    async with serving(FaultyTriton(fault, good)) as triton, client_of(triton) as client:
        assert (await client.infer(CALL, deadline=60))["EMBEDDING"].tolist() == [[0.5, -0.25]]
    assert len(triton.requests) == 2
    # The gate asked for the pipeline and for the model behind it.
    assert set(triton.asked) == {"clip_text", "encoder"}


async def test_a_request_that_always_fails_is_not_retried_for_ever() -> None:
    async with serving(FaultyTriton(status(500, "boom"))) as triton, client_of(triton) as client:
        with pytest.raises(ServerFault, match="clip_text failed with status 500: boom"):
            await client.infer(CALL, deadline=60)
    assert len(triton.requests) == ATTEMPTS


async def test_waits_for_a_model_that_is_not_ready_until_the_deadline() -> None:
    triton = FaultyTriton(status(503, "not loaded"), good)
    triton.ready = False
    async with serving(triton), client_of(triton) as client:
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"gave no answer within 2 s .* clip_text: not ready in Triton"):
            await client.infer(CALL, deadline=2)
        assert 1.9 < time.monotonic() - started < 22


async def test_nothing_is_sent_while_a_model_is_not_ready() -> None:
    triton = FaultyTriton(status(503, "not loaded"), good)
    triton.ready = False
    async with serving(triton), client_of(triton) as client:
        waiting = [asyncio.create_task(client.infer(CALL, deadline=60))]
        await until(lambda: not client.gate(PIPELINE).is_open)
        waiting += [asyncio.create_task(client.infer(CALL, deadline=60)) for _ in range(10)]
        # The probe asks whether the pipeline is ready, and its model: here three times.
        probes = len(triton.asked)
        await until(lambda: len(triton.asked) >= probes + 3 * 2)
        assert len(triton.requests) == 1
        triton.ready = True
        await asyncio.gather(*waiting)
    assert len(triton.requests) == 1 + 11


async def test_waits_for_a_triton_that_is_not_there() -> None:
    async with serving(FaultyTriton(good)) as gone:
        pass
    port = int(gone.url.rsplit(":", 1)[1])
    async with client_of(gone) as client:
        work = asyncio.create_task(client.infer(CALL, deadline=60))
        await until(lambda: not client.gate(PIPELINE).is_open)
        async with serving(FaultyTriton(good), port):
            assert (await work)["EMBEDDING"].shape == (1, 2)


async def test_a_call_that_hangs_is_given_up_and_tried_again() -> None:
    async with serving(FaultyTriton(hang, good)) as triton, client_of(triton, call_timeout=2) as client:
        assert (await client.infer(CALL, deadline=60))["EMBEDDING"].shape == (1, 2)
    assert len(triton.requests) == 2


async def empty(_: web.Request) -> web.StreamResponse:
    return web.json_response({"model_name": "clip_text", "model_version": "1", "outputs": []})


async def no_json(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>")


async def truncated(_: web.Request) -> web.StreamResponse:
    whole = inference(GOOD)
    assert isinstance(whole.body, bytes)
    return web.Response(body=whole.body[:-3], headers=whole.headers)


async def other(_: web.Request) -> web.StreamResponse:
    return inference(GOOD, name="SOMETHING")


@pytest.mark.parametrize("garbage", [empty, no_json, truncated, other])
async def test_garbage_is_a_server_fault_and_never_an_answer(garbage: Handler) -> None:
    async with serving(FaultyTriton(garbage)) as triton, client_of(triton) as client:
        with pytest.raises(ServerFault):
            await client.infer(CALL, deadline=60)


async def test_not_ready_says_why() -> None:
    triton = FaultyTriton(good)
    async with serving(triton), client_of(triton) as client:
        assert await client.not_ready(["a", "b", "a"], within=30) == {}
        triton.ready = False
        assert await client.not_ready(["a"], within=30) == {"a": "not ready in Triton"}
    async with client_of(triton) as client:
        reason = (await client.not_ready(["a"], within=30))["a"]
    assert f"cannot reach Triton at {triton.url}" in reason


class WithProcesses(FaultyTriton):
    """A server whose pipelines have a number of processes; ``told`` is how often it said so."""

    def __init__(self, count: int, answer: Handler) -> None:
        super().__init__(answer)
        self.count = count
        self.told = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/config"):
            return await super().handle(request)
        self.told += 1
        return web.json_response({"max_batch_size": 8, "instance_group": [{"count": self.count}]})


@pytest.mark.parametrize(("processes", "places"), [(1, 1), (3, 1), (6, 2), (8, 2)])
async def test_large_images_hold_a_third_of_the_processes(processes: int, places: int) -> None:
    """Beyond that they wait in the gateway, and ordinary ones pass them by."""
    at_triton: list[bytes] = []
    let_go = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        at_triton.append(body)
        if body.endswith(LONG_PNG):
            await let_go.wait()
        return inference(GOOD)

    triton = WithProcesses(processes, slow)
    pipeline = Pipeline("ocr", ("detection",), ())
    ordinary, long = (Call(pipeline, "IMAGE", data, ("EMBEDDING",)) for data in (png(1080, 1920), LONG_PNG))
    async with serving(triton), client_of(triton) as client:
        await client.infer(ordinary, deadline=60)  # reads the capacity
        await until(lambda: triton.told > 0)
        waiting = [asyncio.create_task(client.infer(long, deadline=60)) for _ in range(places + 3)]
        await until(lambda: sum(body.endswith(LONG_PNG) for body in at_triton) == places)
        await asyncio.gather(*(client.infer(ordinary, deadline=60) for _ in range(20)))
        assert sum(body.endswith(LONG_PNG) for body in at_triton) == places
        let_go.set()
        await asyncio.gather(*waiting)


def png(width: int, height: int) -> bytes:
    """Give the head of a PNG: all that the gateway looks at."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")


LONG_PNG = png(1080, 53_000)
