"""The client of Triton: deadlines, retries, the breaker, and which error says what."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import override

import numpy as np
import pytest
from aiohttp import web
from mitmproxy.test import tflow

from immich_triton.core.observer import Observer
from immich_triton.core.request_id import RequestIds, current_id
from immich_triton.triton.attempts import ATTEMPTS, SENDS
from immich_triton.triton.client import BadInput, Call, Poison, Refused, ServerFault, TritonClient, Unavailable
from immich_triton.triton.pipelines import Pipeline

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
        self.late = 0.0
        self.away: set[str] = set()
        self.config: dict[str, object] = {}
        self.configs_read = 0
        self.asked: list[str] = []
        self.live = True
        self.index = 404
        self.instances = 1
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/ready"):
            model = request.path.split("/")[3]
            self.asked.append(model)
            await asyncio.sleep(self.late)
            return web.Response(status=200 if self.ready and model not in self.away else 400)
        if request.path == "/v2/health/live":
            return web.Response(status=200 if self.live else 503)
        if request.path == "/v2/repository/index":
            return web.json_response([], status=self.index)
        if request.path.endswith("/config"):
            self.configs_read += 1
            return web.json_response(
                self.config or {"max_batch_size": 1, "instance_group": [{"count": self.instances}]}
            )
        if not request.path.endswith("/infer"):
            return web.Response(status=404)
        self.requests.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


class AtTriton(Observer):
    """Remembers how many calls are at Triton, and how many there were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    @override
    def at_triton(self, pipeline: str, count: int) -> None:
        self.now = count
        self.most = max(self.most, count)


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
async def client_of(
    triton: FaultyTriton, call_timeout: float = 60.0, observer: Observer | None = None
) -> AsyncIterator[TritonClient]:
    client = TritonClient(triton.url, timeout=call_timeout, observer=observer)
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
        assert client.breaker(PIPELINE).is_closed
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
    # The breaker asked for the pipeline and for the model behind it.
    assert set(triton.asked) == {"clip_text", "encoder"}


async def test_what_the_probe_says_carries_nobodys_request_id() -> None:
    class Ids(Observer):
        def __init__(self) -> None:
            self.seen: list[tuple[bool, str]] = []

        @override
        def breaker_changed(self, pipeline: str, *, is_closed: bool, reason: str) -> None:
            self.seen.append((is_closed, current_id()))

    RequestIds().requestheaders(flow := tflow.tflow())
    ids = Ids()
    async with serving(FaultyTriton(cut, good)) as triton, client_of(triton, observer=ids) as client:
        await client.infer(CALL, deadline=60)
    assert ids.seen == [(False, flow.request.headers["X-Request-ID"]), (True, "")]


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
        await until(lambda: not client.breaker(PIPELINE).is_closed)
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
        await until(lambda: not client.breaker(PIPELINE).is_closed)
        async with serving(FaultyTriton(good), port):
            assert (await work)["EMBEDDING"].shape == (1, 2)


async def test_a_call_is_given_up_when_its_model_is_away_and_sent_again_when_it_is_back() -> None:
    triton = FaultyTriton(hang, good)
    async with serving(triton), client_of(triton, call_timeout=0.1) as client:
        work = asyncio.create_task(client.infer(CALL, deadline=60))
        await until(lambda: len(triton.requests) == 1)
        triton.ready = False
        await until(lambda: not client.breaker(PIPELINE).is_closed)
        triton.ready = True
        assert (await work)["EMBEDDING"].shape == (1, 2)
    assert len(triton.requests) == 2


async def test_a_call_whose_model_is_ready_is_waited_for_and_never_sent_again() -> None:
    answer = asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        await answer.wait()
        return await good(request)

    async with serving(FaultyTriton(late)) as triton, client_of(triton, call_timeout=0.05) as client:
        work = asyncio.create_task(client.infer(CALL, deadline=60))
        # Asked for a few times whether its models are ready: it has had its time several times over.
        await until(lambda: triton.asked.count("clip_text") >= 3)
        assert client.breaker(PIPELINE).is_closed
        answer.set()
        assert (await work)["EMBEDDING"].shape == (1, 2)
    assert len(triton.requests) == 1


async def test_long_images_beside_ordinary_ones_are_sent_once_and_answered() -> None:
    """What waited in Triton's queue past its time was sent again, and a busy machine had three times the work."""
    busy = asyncio.Lock()

    async def in_order(request: web.Request) -> web.StreamResponse:
        async with busy:
            await asyncio.sleep(0.3 if len(triton.requests) <= 4 else 0.02)
        return await good(request)

    triton = FaultyTriton(in_order)
    async with serving(triton), client_of(triton, call_timeout=0.1) as client:
        answers = await asyncio.gather(*(client.infer(CALL, deadline=60) for _ in range(12)))
    assert {answer["EMBEDDING"].shape for answer in answers} == {(1, 2)}
    assert len(triton.requests) == 12


async def test_a_call_without_an_answer_ends_with_the_deadline_and_keeps_its_place() -> None:
    seen = AtTriton()
    async with serving(FaultyTriton(hang)) as triton, client_of(triton, call_timeout=0.05, observer=seen) as client:
        with pytest.raises(Unavailable, match="gave no answer within 1 s"):
            await client.infer(CALL, deadline=1)
        # It goes on in Triton: nothing else may be sent in its place.
        assert (len(triton.requests), seen.now) == (1, 1)


async def test_the_places_of_calls_that_nobody_waits_for_come_back_when_triton_is_away() -> None:
    seen, triton = AtTriton(), FaultyTriton(hang)
    async with serving(triton), client_of(triton, observer=seen) as client:
        with pytest.raises(Unavailable):
            await client.infer(CALL, deadline=0.3)
        assert seen.now == 1
        triton.ready = triton.live = False
        with pytest.raises(Unavailable):
            await client.infer(CALL, deadline=0.3)
        await until(lambda: seen.now == 0)


async def test_a_call_that_nobody_waits_for_does_not_keep_its_place_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immich_triton.triton.line.ABANDONED", 0.1)
    seen = AtTriton()
    async with serving(FaultyTriton(hang)) as triton, client_of(triton, observer=seen) as client:
        with pytest.raises(Unavailable):
            await client.infer(CALL, deadline=0.3)
        await until(lambda: seen.now == 0)


async def test_what_waits_in_tritons_queue_has_longer_until_triton_is_asked() -> None:
    triton = FaultyTriton(hang)
    async with serving(triton), client_of(triton, call_timeout=10) as client:
        line = client._line(PIPELINE)
        await until(lambda: line._learned > 0)
        patience, work = [], []
        for count in range(1, 4):  # one at work, and the two that may wait at Triton
            work.append(asyncio.create_task(client.infer(CALL, deadline=60)))
            await until(lambda count=count: len(triton.requests) == count)  # type: ignore[misc]
            patience.append(line._patience())
        assert patience == [10, 20, 30]
        for one in work:
            one.cancel()
        await asyncio.wait(work)


async def test_the_places_are_those_of_the_config_that_came_back() -> None:
    triton, seen = FaultyTriton(cut, hang), AtTriton()
    async with serving(triton), client_of(triton, observer=seen) as client:
        line = client._line(PIPELINE)
        await until(lambda: line._learned > 0)
        triton.instances = 4
        work = [asyncio.create_task(client.infer(CALL, deadline=60)) for _ in range(9)]
        await until(lambda: seen.now == 4 + 2)
        for one in work:
            one.cancel()
        await asyncio.wait(work)


NET_DIED = status(500, "ModelCallError: model encoder failed: Stub process 'encoder_0_0' is not healthy.")
OTHER_DIED = status(500, "ModelCallError: model other failed: Stub process 'other_0_1' is not healthy.")
PIPELINE_DIED = status(500, "Stub process 'clip_text_0_0' is not healthy.")


async def test_after_a_death_one_request_at_a_time_is_tried_until_one_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("immich_triton.triton.breaker.TRIAL_FIRST", 0.2)
    seen = AtTriton()
    triton = FaultyTriton(NET_DIED)
    async with serving(triton), client_of(triton, observer=seen) as client:
        breaker = client.breaker(PIPELINE)
        work = [asyncio.create_task(client.infer(CALL, deadline=60)) for _ in range(6)]
        await until(lambda: not breaker.is_closed)
        await until(lambda: seen.now == 0)
        sent, seen.most = len(triton.requests), 0
        # Triton says ready all the while.
        await until(lambda: len(triton.requests) >= sent + 2)
        assert seen.most == 1
        assert not breaker.is_closed
        assert client.waiting([PIPELINE]) == {"clip_text": breaker.reason}
        assert "is not healthy" in breaker.reason
        triton.answers = [good]
        assert {answer["EMBEDDING"].shape for answer in await asyncio.gather(*work)} == {(1, 2)}
        assert breaker.state == "closed"
        assert client.waiting([PIPELINE]) == {}


async def test_a_process_that_stays_dead_is_503_at_the_deadline_and_never_500() -> None:
    async with serving(FaultyTriton(NET_DIED)) as triton, client_of(triton) as client:
        outcomes = await asyncio.gather(*(client.infer(CALL, deadline=3) for _ in range(4)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
        assert not client.breaker(PIPELINE).is_closed
    assert len(triton.requests) < 4 * SENDS


async def replaced(client: TritonClient, triton: FaultyTriton, model: str) -> None:
    """Load *model* anew, as long as it takes until the gateway has seen that."""
    probes = len(triton.asked)
    triton.away.add(model)
    await until(lambda: len(triton.asked) >= probes + 6 and model in client.breaker(PIPELINE).reason)
    triton.away.discard(model)


async def test_a_request_over_which_a_model_dies_twice_is_given_up_as_poison() -> None:
    triton = FaultyTriton(NET_DIED)
    async with serving(triton), client_of(triton) as client:
        work = asyncio.create_task(client.infer(CALL, deadline=60))
        await until(lambda: client.breaker(PIPELINE).state == "open")
        await replaced(client, triton, "encoder")
        with pytest.raises(Poison, match=r"poison: encoder died twice while it worked on this request"):
            await work
    assert len(triton.requests) == 2


async def test_an_answer_that_is_late_does_not_make_a_dead_process_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Triton may take its time to say that a model is ready."""
    monkeypatch.setattr("immich_triton.triton.client.PROBE_TIMEOUT", 0.3)
    monkeypatch.setattr("immich_triton.triton.breaker.TRIAL_FIRST", 0.2)
    triton = FaultyTriton(NET_DIED)
    async with serving(triton), client_of(triton) as client:
        work = asyncio.create_task(client.infer(CALL, deadline=60))
        for _ in range(2):
            triton.late = 0.6
            await until(lambda: "did not answer within" in client.breaker(PIPELINE).reason or work.done())
            triton.late = 0
            sent = len(triton.requests)
            await until(lambda sent=sent: len(triton.requests) > sent or work.done())  # type: ignore[misc]
        triton.answers = [good]
        assert (await work)["EMBEDDING"].shape == (1, 2)


async def test_the_deaths_of_two_models_do_not_add_up() -> None:
    triton = FaultyTriton(NET_DIED, OTHER_DIED, PIPELINE_DIED, good)
    async with serving(triton), client_of(triton) as client:
        work = asyncio.create_task(client.infer(CALL, deadline=60))
        for model in ("encoder", "clip_text", "encoder"):
            await until(lambda: client.breaker(PIPELINE).state == "open" or work.done())
            await replaced(client, triton, model)
        assert (await work)["EMBEDDING"].shape == (1, 2)


async def test_suspects_are_sent_one_after_the_other() -> None:
    """Those that were in the batch of a killer would else be at Triton with it again."""
    together, most = 0, 0

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.05)
        together -= 1
        return await good(request)

    triton = FaultyTriton(cut, cut, cut, slow)
    async with serving(triton), client_of(triton) as client:
        await asyncio.gather(*(client.infer(CALL, deadline=60) for _ in range(3)))
    assert most == 1


@pytest.mark.parametrize("fault", [cut, status(503, "Exceeds maximum queue size"), status(502, "Bad Gateway")])
async def test_no_fault_is_worth_more_than_so_many_calls(fault: Handler) -> None:
    async with serving(FaultyTriton(fault)) as triton, client_of(triton) as client:
        with pytest.raises(Unavailable, match=f"given up after {SENDS} calls"):
            await client.infer(CALL, deadline=60)
    assert len(triton.requests) == SENDS


async def test_a_fault_of_its_own_is_not_its_own_cause() -> None:
    async with serving(FaultyTriton(status(500, "boom"))) as triton, client_of(triton) as client:
        with pytest.raises(ServerFault) as caught:
            await client.infer(CALL, deadline=60)
    assert caught.value.__cause__ is not caught.value


async def test_a_breaker_that_nobody_tries_closes_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immich_triton.triton.breaker.TRUST", 0.1)
    async with serving(FaultyTriton(NET_DIED)) as triton, client_of(triton) as client:
        with pytest.raises(Unavailable):
            await client.infer(CALL, deadline=0.5)
        await until(lambda: client.breaker(PIPELINE).is_closed)


@pytest.mark.parametrize("answer", [500, 502, 503])
async def test_a_key_is_not_taken_because_a_question_failed(answer: int) -> None:
    triton = FaultyTriton(status(403, "This API is restricted"))
    triton.index = answer
    async with serving(triton), client_of(triton) as client:
        assert client.url in (await client.not_ready(["clip_text"], within=30))["Triton"]
        triton.index = 403
        assert "wants a key and the gateway has none" in (await client.not_ready(["clip_text"], within=30))["Triton"]
        with pytest.raises(Refused):
            await client.infer(CALL, deadline=60)
        triton.index = 200
        assert await client.not_ready(["clip_text"], within=30) == {}


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

    triton = FaultyTriton(slow)
    triton.config = {"max_batch_size": 8, "instance_group": [{"count": processes}]}
    pipeline = Pipeline("ocr", ("detection",), ())
    ordinary, long = (Call(pipeline, "IMAGE", data, ("EMBEDDING",)) for data in (png(1080, 1920), LONG_PNG))
    async with serving(triton), client_of(triton) as client:
        await client.infer(ordinary, deadline=60)  # reads the capacity
        await until(lambda: triton.configs_read > 0)
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


@pytest.mark.parametrize("order", [1, -1])
async def test_an_open_breaker_shows_beside_a_closed_one_of_the_same_pipeline(order: int) -> None:
    """Two encoders share ``clip_image`` and have a breaker each."""
    first, second = (Pipeline("clip_image", ("visual",), (name,)) for name in ("encoder_a", "encoder_b"))
    async with serving(FaultyTriton()) as triton, client_of(triton) as client:
        client.breaker(first).open("a process died", stuck=True)
        assert client.waiting([first, second][::order]) == {"clip_image": "a process died"}
