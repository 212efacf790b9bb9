"""The end: after SIGTERM or Ctrl-C nobody is cut off."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder
from stand_in_triton import StandInTriton, write_routes

from harness.program import eventually
from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml.outages import Outages


def start(
    triton: StandInTriton, upstream: Recorder, directory: Path, drain_timeout: int
) -> AbstractContextManager[GatewayProcess]:
    return running_gateway(
        directory,
        models=write_routes(directory / "models"),
        triton_url=triton.url,
        upstream=upstream.url,
        immich_drain_timeout=drain_timeout,
    )


@pytest.fixture
def gateway(triton: StandInTriton, upstream: Recorder, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway with all the time in the world to end."""
    with start(triton, upstream, tmp_path, drain_timeout=120) as process:
        yield process


class Client:
    """Sends one request after the other over kept connections, as Immich does, until it is told to come back later."""

    def __init__(self, gateway: GatewayProcess, kind: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._host = gateway.url.removeprefix("http://")
        self._kind = kind
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def send_no_more(self) -> None:
        self._stopped.set()

    def stop(self) -> None:
        self.send_no_more()
        self.thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        while not self._stopped.is_set():
            fresh = connection.sock is None
            try:
                if fresh:
                    connection.connect()
            except ConnectionRefusedError:
                self.outcomes["refused"] += 1
                return
            self.outcomes[outcome := self._ask(connection)] += 1
            if outcome != "200":
                connection.close()
                self._stopped.wait(0.3)

    def _ask(self, connection: http.client.HTTPConnection) -> str:
        if self._kind == "pass":
            method, path, body, headers = "POST", "/x", b"y" * 100_000, {}
        else:
            content_type, body = encode(entries_for(self._kind), image=b"i" * 100_000)
            method, path, headers = "POST", "/predict", {"content-type": content_type}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            return f"cut: {error!r}"
        return str(response.status)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_under_load_nobody_is_cut_off(gateway: GatewayProcess, triton: StandInTriton, number: signal.Signals) -> None:
    triton.delay = 0.3
    clients = [Client(gateway, kind) for kind in ("ocr", "clip", "ocr", "pass", "clip", "ocr", "pass", "ocr")]
    try:
        assert eventually(lambda: all(client.outcomes["200"] for client in clients))
        os.kill(gateway.pid, number)
        assert gateway.process.wait(60) == 0
    finally:
        for client in clients:
            client.stop()
    total = sum((client.outcomes for client in clients), Counter[str]())
    assert set(total) <= {"200", "503", "refused"}, total
    assert "Traceback" not in gateway.whole_log()


def test_ping_says_at_once_that_we_are_leaving_and_the_last_answer_is_given(
    gateway: GatewayProcess, triton: StandInTriton
) -> None:
    with triton.holding():
        client = Client(gateway, "ocr")
        try:
            assert eventually(lambda: triton.now == 1)
            client.send_no_more()
            gateway.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: requests.get(f"{gateway.url}/ping", timeout=60).status_code == 503)
            answer = requests.post(f"{gateway.url}/predict", data=b"x", timeout=60)
            assert (answer.status_code, answer.json()) == (503, {"detail": "immich-triton is stopping"})
            assert answer.headers["connection"] == "close"
            triton.held = False
            assert gateway.process.wait(60) == 0
        finally:
            client.stop()
    assert client.outcomes == {"200": 1}
    assert "requests are cut off" not in gateway.whole_log()
    # Whoever was refused may have sent a photo.
    assert "ocr: to be caught up on: photos may have been refused (draining, 503)" in gateway.log
    assert Outages(gateway.state_dir).marks().keys() == {"clip", "ocr"}


def test_a_request_that_does_not_end_does_not_hold_it_up_for_ever(
    triton: StandInTriton, upstream: Recorder, tmp_path: Path
) -> None:
    with start(triton, upstream, tmp_path, drain_timeout=2) as gateway, triton.holding():
        client = Client(gateway, "ocr")
        try:
            assert eventually(lambda: triton.now == 1)
            client.send_no_more()
            started = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            assert gateway.process.wait(60) == 0
            assert time.monotonic() - started >= 2
            assert "requests are cut off after 2 s" in gateway.log
            assert Outages(gateway.state_dir).marks().keys() == {"clip", "ocr"}
        finally:
            client.stop()
