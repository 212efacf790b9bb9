"""A Triton that misbehaves: nothing wrong reaches Immich, and the faults of one pipeline do not touch the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest
import requests
from embedded_triton import eventually
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream
from stand_in_triton import OCR_NAME, StandInTriton, stand_in_triton, write_routes
from toolbox.client import Answer, encode, entries_for, predict

DEADLINE, QUERY_DEADLINE = 4, 2


@pytest.fixture(scope="module")
def server() -> Iterator[StandInTriton]:
    with stand_in_triton() as triton:
        yield triton


@pytest.fixture
def triton(server: StandInTriton, gateway: GatewayProcess) -> Iterator[StandInTriton]:
    """A Triton that is well at the beginning, and again at the end."""
    server.calls.clear()
    server.most = 0
    yield server
    server.behaviour.clear()
    server.unready.clear()
    server.delay = 0
    assert eventually(lambda: ask(gateway, "ocr").status == 200, 10)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(
    server: StandInTriton, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    with running_gateway(
        directory,
        models=write_routes(directory / "models"),
        triton_url=server.url,
        upstream=upstream.url,
        immich_deadline=DEADLINE,
        immich_query_deadline=QUERY_DEADLINE,
        immich_triton_timeout=1,
    ) as process:
        yield process


def ask(gateway: GatewayProcess, task: str, payload: bytes = b"image") -> Answer:
    if task == "clip-text":
        return predict(gateway.url, entries_for(task), text="猫", timeout=30)
    return predict(gateway.url, entries_for(task), image=payload, timeout=30)


GARBAGE = [
    "empty",
    "error in a 200",
    "not json",
    "nan",
    "short",
    "lying shape",
    "strings",
    "truncated",
    "truncated binary",
    "500",
    "reset",
]


@pytest.mark.parametrize("task", ["clip", "clip-text", "ocr"])
@pytest.mark.parametrize("behaviour", GARBAGE)
def test_garbage_never_becomes_an_answer(
    gateway: GatewayProcess, triton: StandInTriton, upstream: Recorder, behaviour: str, task: str
) -> None:
    triton.behaviour[""] = behaviour
    answer = ask(gateway, task)
    assert answer.status in (500, 503)
    assert set(answer.body) == {"detail"}
    assert "unexpected error" not in gateway.log
    assert upstream.predictions() == []


def test_the_faults_of_one_pipeline_do_not_touch_the_others(gateway: GatewayProcess, triton: StandInTriton) -> None:
    triton.unready.add("ocr_rec")
    triton.behaviour["ocr"] = "503"
    with ThreadPoolExecutor(4) as pool:
        broken = [pool.submit(ask, gateway, "ocr") for _ in range(4)]
        while not all(one.done() for one in broken):
            for task in ("clip", "clip-text"):
                answer = ask(gateway, task)
                assert answer.status == 200
                assert answer.seconds < 1
    assert {one.result().status for one in broken} == {503}
    assert "ocr_rec: not ready in Triton" in broken[0].result().body["detail"]
    assert requests.get(f"{gateway.url}/ping", timeout=5).status_code == 503


def test_nothing_is_sent_while_the_gate_is_closed_and_all_come_through_when_it_opens(
    gateway: GatewayProcess, triton: StandInTriton
) -> None:
    triton.unready.add("ocr_rec")
    triton.behaviour["ocr"] = "503"
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, gateway, "ocr") for _ in range(8)]
        assert eventually(lambda: len(triton.calls) > 0, 3)
        time.sleep(0.5)
        sent = len(triton.calls)
        time.sleep(1)
        assert len(triton.calls) == sent
        triton.behaviour.clear()
        triton.unready.clear()
        assert {one.result().status for one in waiting} == {200}


def test_a_hanging_triton_is_given_up_within_the_deadlines(gateway: GatewayProcess, triton: StandInTriton) -> None:
    triton.behaviour[""] = "hang"
    with ThreadPoolExecutor(2) as pool:
        image, query = pool.submit(ask, gateway, "ocr"), pool.submit(ask, gateway, "clip-text")
        assert query.result().status == 503
        assert QUERY_DEADLINE - 0.1 < query.result().seconds < QUERY_DEADLINE + 1
        assert image.result().status == 503
        assert image.result().seconds < DEADLINE + 1


def test_few_calls_are_at_triton_and_the_rest_waits_in_the_gateway(
    gateway: GatewayProcess, triton: StandInTriton
) -> None:
    # One instance with batches of one, and two more (the margin).
    assert ask(gateway, "ocr").status == 200
    # Some calls of other tests may still hang there.
    triton.delay, triton.most = 0.2, 0
    hanging = triton.now
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: ask(gateway, "ocr"), range(12)))
    assert {answer.status for answer in answers} == {200}
    assert triton.most - hanging == 3


async def test_clients_that_vanish_leave_the_queue_and_no_trace(gateway: GatewayProcess, triton: StandInTriton) -> None:
    content_type, body = encode(entries_for("ocr"), image=bytes(200_000))
    headers = {"content-type": content_type}
    request = (
        f"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    host, port = gateway.url.removeprefix("http://").split(":")

    async def vanish(index: int) -> None:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(request if index % 2 else request[: len(request) // 2])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    memory = []
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            triton.delay = 0.5
            for start in range(0, 250, 50):
                await asyncio.gather(*(vanish(index) for index in range(start, start + 50)))
            triton.delay = 0
            # Those that were at Triton are done soon; the others have left.
            async with session.post(f"{gateway.url}/predict", data=body, headers=headers) as response:
                assert response.status == 200
            memory.append(gateway.rss())
        async with session.get(f"{gateway.metrics_url}/metrics") as response:
            metrics = await response.text()
    assert len(triton.calls) < 250
    busy = {
        f"immich_gateway_{name}" for name in ("requests_in_flight", "requests_waiting", "triton_calls", "held_bytes")
    }
    values = [line.rpartition(" ") for line in metrics.splitlines()]
    assert {name.split("{")[0] for name, _, _ in values} >= busy
    assert {value for name, _, value in values if name.split("{")[0] in busy} == {"0.0"}
    # The first round shows what so many at a time need, the second that it is not more every time.
    assert memory[1] - memory[0] < 32 << 20


def test_no_text_and_no_image_is_written_down(gateway: GatewayProcess, triton: StandInTriton) -> None:
    secret = "geheimnis"  # noqa: S105 - to be found where it must not be
    for behaviour in ("", "500", "not json", "strings", "error in a 200"):
        triton.behaviour[""] = behaviour
        predict(gateway.url, entries_for("clip-text"), text=f"{secret} 秘密")
        predict(gateway.url, entries_for("ocr"), image=secret.encode() * 100)
    triton.behaviour.clear()
    predict(gateway.url, {"clip": {"textual": {"modelName": secret + "\ud83d"}}}, text=secret)
    predict(gateway.url, {"ocr": {"detection": {"modelName": OCR_NAME, "options": {"minScore": secret}}}}, image=b"i")
    predict(gateway.url, {}, text=secret)
    requests.post(f"{gateway.url}/predict", data=secret.encode(), timeout=5)
    state = b"".join(path.read_bytes() for path in gateway.state_dir.rglob("*") if path.is_file())
    for written in (gateway.log, state.decode(), requests.get(f"{gateway.metrics_url}/metrics", timeout=5).text):
        assert secret not in written
        assert "秘密" not in written


def test_a_wrong_key_is_a_clear_error_and_no_flapping(
    server: StandInTriton, upstream: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("wrong\n")
    server.behaviour[""] = "403"
    try:
        with running_gateway(
            tmp_path,
            models=write_routes(tmp_path / "models"),
            triton_url=server.url,
            upstream=upstream.url,
            immich_triton_key=f"file:{tmp_path / 'key'}",
        ) as gateway:
            server.calls.clear()
            for _ in range(3):
                answer = ask(gateway, "ocr")
                assert answer.status == 503
                assert answer.seconds < 2
                assert "refuses our key: set immich_triton_key" in answer.body["detail"]
            assert len(server.calls) == 3
            assert "waiting for Triton" not in gateway.log
            assert "wrong" not in gateway.log
    finally:
        server.behaviour.clear()


@pytest.mark.parametrize("upstream_answers", [True, False])
def test_falls_back_by_choice_and_never_for_clip(
    server: StandInTriton, tmp_path: Path, *, upstream_answers: bool
) -> None:
    with recording_upstream() as recorder:
        recorder.answer = (200, b'{"ocr":"of the upstream","imageHeight":1,"imageWidth":1}')
        if not upstream_answers:
            recorder.answer = (500, b"Internal Server Error")
        server.behaviour[""] = "503"
        server.unready |= {"ocr_rec", "visual"}
        try:
            with running_gateway(
                tmp_path,
                models=write_routes(tmp_path / "models"),
                triton_url=server.url,
                upstream=recorder.url,
                immich_fallback_tasks="ocr",
                immich_deadline=2,
            ) as gateway:
                ocr, clip = ask(gateway, "ocr"), ask(gateway, "clip")
                assert (clip.status, len(recorder.predictions())) == (503, 1)
                if upstream_answers:
                    assert (ocr.status, ocr.body["ocr"]) == (200, "of the upstream")
                    assert "ocr: answered by the stock ML: ocr waits for Triton: " in gateway.log
                else:
                    # Then the request waits for Triton as it would without a fallback.
                    assert ocr.status == 503
                    assert ocr.seconds > 1.5
                server.behaviour.clear()
                server.unready.clear()
                assert eventually(lambda: "text" in str(ask(gateway, "ocr").body), 5)
        finally:
            server.behaviour.clear()
            server.unready.clear()
