"""A Triton that misbehaves: nothing wrong reaches Immich, and the faults of one pipeline do not touch the others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream
from scrape import Scrape
from stand_in_triton import OCR_NAME, StandInTriton, stand_in_triton, write_routes

from harness.program import eventually
from immich_triton.immich.ml_client import Answer, encode, entries_for, predict

DEADLINE, QUERY_DEADLINE = 4, 2
"""Of the gateway that does not wait long, in seconds."""

LATE = 20
"""Seconds that a busy machine may add."""

GAUGES = ("requests_in_flight", "requests_waiting", "triton_calls", "held_bytes")


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
    assert eventually(lambda: ask(gateway, "ocr").status == 200)
    assert eventually(lambda: server.now == 0)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


def start(
    server: StandInTriton, upstream: Recorder, directory: Path, **options: Any
) -> AbstractContextManager[GatewayProcess]:
    models = write_routes(directory / "models")
    return running_gateway(directory, models=models, triton_url=server.url, upstream=upstream.url, **options)


@pytest.fixture(scope="module")
def gateway(
    server: StandInTriton, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway that waits long: what can be answered is."""
    directory = tmp_path_factory.mktemp("gateway")
    with start(server, upstream, directory, immich_deadline=120, immich_query_deadline=120) as process:
        yield process


@pytest.fixture(scope="module")
def hasty(
    server: StandInTriton, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway that soon gives up."""
    options = {"deadline": DEADLINE, "query_deadline": QUERY_DEADLINE, "triton_timeout": 1}
    named = {f"immich_{name}": value for name, value in options.items()}
    with start(server, upstream, tmp_path_factory.mktemp("hasty"), **named) as process:
        yield process


def ask(gateway: GatewayProcess, task: str, payload: bytes = b"image") -> Answer:
    if task == "clip-text":
        return predict(gateway.url, entries_for(task), text="猫", timeout=150)
    return predict(gateway.url, entries_for(task), image=payload, timeout=150)


def gauge(gateway: GatewayProcess, name: str) -> float:
    return Scrape(gateway.metrics_url).value(f"immich_gateway_{name}")


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


@pytest.mark.parametrize("behaviour", GARBAGE)
def test_garbage_never_becomes_an_answer(
    gateway: GatewayProcess, triton: StandInTriton, upstream: Recorder, behaviour: str
) -> None:
    triton.behaviour[""] = behaviour
    tasks = ("clip", "clip-text", "ocr")
    with ThreadPoolExecutor(len(tasks)) as pool:  # their waits between two attempts overlap
        answers = dict(zip(tasks, pool.map(lambda task: ask(gateway, task), tasks), strict=True))
    for task, answer in answers.items():
        assert answer.status in (500, 503), task
        assert set(answer.body) == {"detail"}, task
    assert "unexpected error" not in gateway.whole_log()
    assert upstream.predictions() == []


def test_the_faults_of_one_pipeline_do_not_touch_the_others(hasty: GatewayProcess, triton: StandInTriton) -> None:
    triton.unready.add("ocr_rec")
    triton.behaviour["ocr"] = "503"
    answered = 0
    with ThreadPoolExecutor(4) as pool:
        broken = [pool.submit(ask, hasty, "ocr") for _ in range(4)]
        while not any(one.done() for one in broken):
            assert [ask(hasty, task).status for task in ("clip", "clip-text")] == [200, 200]
            answered += 1
    assert answered > 1
    assert {one.result().status for one in broken} == {503}
    assert "ocr_rec: not ready in Triton" in broken[0].result().body["detail"]
    assert requests.get(f"{hasty.url}/ping", timeout=60).status_code == 503


def test_nothing_is_sent_while_the_gate_is_closed_and_all_come_through_when_it_opens(
    gateway: GatewayProcess, triton: StandInTriton
) -> None:
    triton.unready.add("ocr_rec")
    triton.behaviour["ocr"] = "503"
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, gateway, "ocr") for _ in range(8)]
        assert eventually(lambda: len(triton.calls) > 0 and gauge(gateway, "requests_waiting") == 8)
        sent, probes = len(triton.calls), triton.probes
        # Three times it was asked whether the pipeline, its detector and its recognizer are ready.
        assert eventually(lambda: triton.probes >= probes + 9)
        assert len(triton.calls) == sent
        triton.behaviour.clear()
        triton.unready.clear()
        assert {one.result().status for one in waiting} == {200}


def test_a_dead_process_behind_a_ready_model_is_503_everywhere_until_a_call_is_answered(
    gateway: GatewayProcess, triton: StandInTriton
) -> None:
    def states() -> tuple[float, float, int, int]:
        scrape = Scrape(gateway.metrics_url)
        values = [
            scrape.value(f"immich_gateway_{name}", pipeline="ocr") for name in ("breaker_open", "breaker_half_open")
        ]
        ping = requests.get(f"{gateway.url}/ping", timeout=60)
        ready = requests.get(f"{gateway.metrics_url}/readyz", timeout=60)
        if ping.status_code == 503:
            assert "Stub process" in ping.json()["detail"]
        return values[0], values[1], ping.status_code, ready.status_code

    assert ask(gateway, "ocr").status == 200
    triton.behaviour["ocr"] = "dead process"
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, gateway, "ocr") for _ in range(8)]
        assert eventually(lambda: gauge(gateway, "requests_waiting") >= 7)
        sent = len(triton.calls)
        assert states()[0] == 1
        assert states()[2:] == (503, 503)
        # Triton says ready: now and then one request tries.
        assert eventually(lambda: len(triton.calls) >= sent + 2)
        with triton.holding():
            assert eventually(lambda: states()[1] == 1)
            assert eventually(lambda: triton.now == 1)
            triton.behaviour.clear()
        assert {one.result().status for one in waiting} == {200}
    assert eventually(lambda: states() == (0, 0, 200, 200))


def test_a_process_that_stays_dead_costs_503_and_not_500(hasty: GatewayProcess, triton: StandInTriton) -> None:
    triton.behaviour["ocr"] = "dead process"
    with ThreadPoolExecutor(6) as pool:
        assert {one.status for one in pool.map(lambda _: ask(hasty, "ocr"), range(6))} == {503}


def test_a_hanging_triton_is_given_up_within_the_deadlines(hasty: GatewayProcess, triton: StandInTriton) -> None:
    triton.behaviour[""] = "hang"
    with ThreadPoolExecutor(2) as pool:
        image, query = pool.submit(ask, hasty, "ocr"), pool.submit(ask, hasty, "clip-text")
        assert query.result().status == 503
        assert QUERY_DEADLINE - 0.1 < query.result().seconds < QUERY_DEADLINE + LATE
        assert image.result().status == 503
        assert DEADLINE - 0.1 < image.result().seconds < DEADLINE + LATE
    triton.behaviour.clear()
    assert eventually(lambda: {ask(hasty, task).status for task in ("ocr", "clip-text")} == {200})


def test_few_calls_are_at_triton_and_the_rest_waits_in_the_gateway(
    gateway: GatewayProcess, triton: StandInTriton
) -> None:
    # With the first answer the gateway begins to read what the pipeline can work on, with the second it knows.
    assert [ask(gateway, "ocr").status for _ in range(2)] == [200, 200]
    triton.most = 0
    with ThreadPoolExecutor(12) as pool, triton.holding():
        answers = [pool.submit(ask, gateway, "ocr") for _ in range(12)]
        # One instance with batches of one, and two more (the margin).
        assert eventually(lambda: (triton.now, gauge(gateway, "requests_waiting")) == (3, 9))
        triton.held = False
        assert {answer.result().status for answer in answers} == {200}
    assert triton.most == 3


def test_clients_that_vanish_leave_the_queue_and_no_trace(gateway: GatewayProcess, triton: StandInTriton) -> None:
    content_type, body = encode(entries_for("ocr"), image=bytes(200_000))
    request = (
        f"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body

    def come_and_go(count: int) -> None:
        """Send *count* requests, half of them not to the end, and go when the gateway has them all."""
        with contextlib.ExitStack() as clients:
            for index in range(count):
                client = clients.enter_context(socket.create_connection(gateway.address, 60))
                client.sendall(request if index % 2 else request[: len(request) // 2])
            assert eventually(lambda: gauge(gateway, "requests_in_flight") == count)
        assert eventually(lambda: gauge(gateway, "requests_in_flight") == 0)

    assert [ask(gateway, "ocr").status for _ in range(2)] == [200, 200]
    triton.calls.clear()
    memory, rounds = [], 4
    for _ in range(rounds):
        with triton.holding():
            for _ in range(5):
                come_and_go(50)
        # Those that were at Triton are done now; the others have left.
        assert ask(gateway, "ocr").status == 200
        memory.append(gateway.rss())
    assert len(triton.calls) == rounds * (3 + 1)
    assert eventually(lambda: not any(gauge(gateway, name) for name in GAUGES))
    # The first two rounds show what so many at a time need, the others that it is not more every time: that would be
    # 40 MB a round.
    assert memory[3] - memory[1] < 40 << 20


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
    requests.post(f"{gateway.url}/predict", data=secret.encode(), timeout=60)
    state = b"".join(path.read_bytes() for path in gateway.state_dir.rglob("*") if path.is_file())
    for written in (gateway.whole_log(), state.decode(), Scrape(gateway.metrics_url).text):
        assert written
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
                assert "refuses our key: set immich_triton_key" in answer.body["detail"]
            assert len(server.calls) == 3
            assert "waiting for Triton" not in gateway.whole_log()
            assert "wrong" not in gateway.whole_log()
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
                immich_deadline=DEADLINE,
            ) as gateway:
                ocr, clip = ask(gateway, "ocr"), ask(gateway, "clip")
                assert (clip.status, len(recorder.predictions())) == (503, 1)
                if upstream_answers:
                    assert (ocr.status, ocr.body["ocr"]) == (200, "of the upstream")
                    assert "ocr: answered by the stock ML: ocr waits for Triton: " in gateway.log
                else:
                    # Then the request waits for Triton as it would without a fallback.
                    assert ocr.status == 503
                    assert ocr.seconds > DEADLINE - 0.1
                server.behaviour.clear()
                server.unready.clear()
                assert eventually(lambda: "text" in str(ask(gateway, "ocr").body))
        finally:
            server.behaviour.clear()
            server.unready.clear()
