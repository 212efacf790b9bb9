"""The gateway that is measured: one that runs already, or one of our own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests

from benchmarks.targets import BenchError
from immich_triton.core import direct_requests
from immich_triton.export.repository import PROJECT
from immich_triton.server import die_with_parent, processes

START_SECONDS: Final = 180.0


@dataclass(frozen=True)
class Gateway:
    """Addresses of a running gateway and its Triton, and their processes where they run on this machine."""

    url: str
    triton: str
    metrics: str
    models: Path

    @property
    def pid(self) -> int | None:
        """The gateway's process, found by its port."""
        return listener_of(self.url)

    @property
    def triton_pid(self) -> int | None:
        """Triton's process, found by its port."""
        return listener_of(self.triton)


def listener_of(url: str) -> int | None:
    """Return the process on this machine that listens at *url*, or None."""
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    return processes.listener(parts.port or 80) if local else None


def attached(url: str, triton: str, metrics: str, models: Path) -> Gateway:
    """Return a gateway that runs already. Raises `BenchError` when its routes are not ready."""
    if reason := _unready(url):
        raise BenchError(f"the gateway at {url} is not ready: {reason}. Start it with: make run")
    return Gateway(url, triton, metrics, models)


@contextlib.contextmanager
def own(models: Path, options: str, log: Path) -> Iterator[Gateway]:
    """Run ``immich-triton run`` over *models* on free ports while the block lasts; what it prints goes to *log*.

    *options* are more options for mitmproxy. Raises `BenchError` when it does not get ready.
    """
    port, own_metrics_port, http_port, metrics_port = _free_ports(4)
    line = [sys.executable, str(PROJECT / "immich-triton run"), "--models", str(models), "--no-export"]
    # Not the user's ledger of owned CLIP names: what is measured may be a test model.
    line += [f"--options=--set immich_state_dir={log.parent / 'bench-state'} {options}"]
    line += ["--port", str(port), "--metrics-port", str(own_metrics_port)]
    line += ["--triton-http-port", str(http_port), "--triton-metrics-port", str(metrics_port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            die_with_parent.wrap(line), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while reason := _unready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"our own gateway did not start ({reason}); see {log}")
            time.sleep(0.2)
        yield Gateway(url, f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}", models)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        if process.poll() is None:
            process.kill()
            process.wait()


def _unready(url: str) -> str:
    try:
        response = direct_requests.get(f"{url}/ping", timeout=5)
    except requests.RequestException as error:
        return f"nobody answers: {error}"
    return "" if response.ok else response.text


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
