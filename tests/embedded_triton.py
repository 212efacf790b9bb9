"""Start the real embedded Triton for a test: ``scripts/run_triton.py`` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from toolbox import die_with_parent

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
START_TIMEOUT = 120.0  # seconds; a loaded machine with two cores needs about 20 for all models


@dataclass
class TritonServer:
    """A running server. ``url`` and ``metrics_url`` have no trailing slash."""

    url: str
    metrics_url: str
    run_dir: Path
    supervisor: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Return the process id of the server itself; it changes when the supervisor starts it again."""
        return int((self.run_dir / "triton.pid").read_text())

    @property
    def log(self) -> str:
        """Return Triton's own log so far."""
        return (self.run_dir / "triton.log").read_text(errors="replace")

    @property
    def console(self) -> str:
        """Return what ``run_triton.py`` printed so far."""
        return (self.run_dir / "console.log").read_text(errors="replace")

    def kill(self) -> None:
        """Kill the server with SIGKILL; the supervisor starts it again."""
        os.kill(self.pid, signal.SIGKILL)

    def live(self) -> bool:
        """Tell whether the server answers; it does so only after every model was loaded, or failed to."""
        try:
            return requests.get(f"{self.url}/v2/health/live", timeout=2).ok
        except requests.RequestException:
            return False

    def wait_until_live(self, timeout: float = START_TIMEOUT) -> None:
        """Wait for `live`. Fails with the console and the log when the supervisor ends, or after *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while not self.live():
            if self.supervisor.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Triton did not start:\n{self.console}\n{self._log_or_nothing()[-4000:]}")
            time.sleep(0.05)

    def _log_or_nothing(self) -> str:
        return self.log if (self.run_dir / "triton.log").exists() else ""

    def stop(self, at_most: float = 30.0) -> int:
        """Stop the server as Ctrl-C does and return the supervisor's exit code."""
        if self.supervisor.poll() is None:
            self.supervisor.terminate()
        try:
            return self.supervisor.wait(at_most)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()
            return self.supervisor.wait()


def free_ports(count: int) -> list[int]:
    """Return *count* different TCP ports that are free on 127.0.0.1 now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def launch(models: Path, run_dir: Path) -> TritonServer:
    """Start Triton over *models* on free ports, without waiting."""
    http_port, metrics_port = free_ports(2)
    run_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(SCRIPTS / "run_triton.py"), "--models", str(models), "--run-dir", str(run_dir)]
    command += ["--http-port", str(http_port), "--metrics-port", str(metrics_port)]
    with (run_dir / "console.log").open("wb") as console:
        supervisor = subprocess.Popen(
            # An interrupted or killed pytest takes the server along.
            die_with_parent.wrap(command),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    return TritonServer(
        f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}", run_dir.resolve(), supervisor
    )


@contextlib.contextmanager
def running(models: Path, run_dir: Path) -> Iterator[TritonServer]:
    """Run Triton over *models* while the block lasts; it is live when the block begins."""
    server = launch(models, run_dir)
    try:
        server.wait_until_live()
        yield server
    finally:
        server.stop()


StartTriton = Callable[[Path], contextlib.AbstractContextManager[TritonServer]]
