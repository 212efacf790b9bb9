"""Processes of a model that are stopped or killed while requests run, in the real Triton."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from small_models import ECHO, write_model

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server import processes
from immich_triton.server.triton_process import TritonProcess
from immich_triton.server.triton_settings import TritonSettings

pytestmark = pytest.mark.xdist_group("supervisor")

BALLAST = 64 << 20
SLOW = f"""
import time
{ECHO.replace("values = ", "time.sleep(0.2); values = ")}
    def initialize(self, args):
        self._ballast = bytearray({BALLAST})
"""
"""Echoes after a while, and has weights."""
INSTANCES = 2
REQUEST = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}


class Supervised:
    """A Triton with the model ``echo`` in a supervisor that runs in a thread; ``said`` is what it said."""

    def __init__(self, directory: Path) -> None:
        http_port, metrics_port = free_ports(2)
        self.said: list[str] = []
        self._run_dir = directory / "run"
        settings = TritonSettings(
            directory / "models", http_port, metrics_port, self._run_dir, hung_seconds=2, leave_seconds=2
        )
        self.url = settings.url
        self._triton = TritonProcess(settings, self.said.append)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._triton.start()
            while not self._stop.wait(0.05):
                self._triton.poll()
        finally:
            self._triton.stop()

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            assert eventually(lambda: self.has_said("ready in"), 120), self.said
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def has_said(self, text: str, times: int = 1) -> bool:
        return sum(text in line for line in self.said) >= times

    @property
    def pid(self) -> int:
        return int((self._run_dir / "triton.pid").read_text())

    def stubs(self) -> set[int]:
        """Return the processes of the model; zombies do not count."""
        return {pid for pid in processes.tree(self.pid)[1:] if processes.arguments(pid)}

    def echoes(self) -> bool:
        return requests.post(f"{self.url}/v2/models/echo/infer", json=REQUEST, timeout=30).ok

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Have both processes busy while the block lasts."""
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                self.echoes()

        clients = [threading.Thread(target=ask) for _ in range(6)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            stop.set()
            for client in clients:
                client.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Supervised]:
    folder = write_model(tmp_path / "models", "echo", code=SLOW)
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(config.replace("count: 1", f"count: {INSTANCES}"))
    supervised = Supervised(tmp_path)
    with supervised.running():
        yield supervised


def test_a_process_that_is_stopped_is_replaced(server: Supervised) -> None:
    before = server.stubs()
    stuck = max(before)
    os.kill(stuck, signal.SIGSTOP)
    assert eventually(lambda: server.has_said(f"process {stuck} of model echo is stopped or does not answer"))
    assert eventually(lambda: server.has_said("echo loaded", times=2), 60)
    assert eventually(lambda: len(server.stubs()) == INSTANCES and not server.stubs() & before)
    assert all(server.echoes() for _ in range(2 * INSTANCES))


def test_nothing_stays_of_a_model_whose_process_was_killed_under_traffic(server: Supervised) -> None:
    with server.traffic():
        before, memory = server.stubs(), processes.memory(server.pid).anonymous
        os.kill(min(before), signal.SIGKILL)
        assert eventually(lambda: server.has_said("echo loaded", times=2), 60)
        # Triton keeps the others for ever, as it waits for the request that the killed one never answers.
        assert eventually(lambda: len(server.stubs()) == INSTANCES and not server.stubs() & before, 60), server.said
    assert processes.memory(server.pid).anonymous < memory + BALLAST / 2
    assert all(server.echoes() for _ in range(2 * INSTANCES))
    assert not server.has_said("echo loaded", times=3), "the end of the old ones was taken for another death"
