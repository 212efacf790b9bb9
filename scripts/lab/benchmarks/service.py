"""The gateway that is measured: one that runs already, or one of our own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests

from benchmarks.targets import BenchError
from harness.ports import free_ports
from harness.program import Program
from immich_triton.core import direct_requests
from immich_triton.server import processes

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
    def port(self) -> int:
        """The gateway's port, after which its run directory is named."""
        return urlsplit(self.url).port or 80

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
        raise BenchError(f"the gateway at {url} is not ready: {reason}. Start it with: immich-triton run")
    return Gateway(url, triton, metrics, models)


@contextlib.contextmanager
def own(models: Path, options: str, log: Path, more: Sequence[object] = ()) -> Iterator[Gateway]:
    """Run ``immich-triton run`` over *models* on free ports while the block lasts; what it prints goes to *log*.

    *options* are more options for mitmproxy, *more* further arguments. Raises `BenchError` when it does not get ready.
    """
    port, own_metrics_port, http_port, metrics_port = free_ports(4)
    # Not the user's ledger of owned CLIP names: what is measured may be a test model.
    line = [
        "--models",
        models,
        "--no-export",
        f"--options=--set immich_state_dir={log.parent / 'bench-state'} {options}",
    ]
    line += ["--port", port, "--metrics-port", own_metrics_port]
    line += ["--triton-http-port", http_port, "--triton-metrics-port", metrics_port]
    program = Program.start("run", [*line, *more], log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while reason := _unready(url):
            failed = "could not be loaded again" in reason
            if failed or program.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"our own gateway did not start ({reason}); see {log}")
            time.sleep(0.2)
        yield Gateway(url, f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}", models)
    finally:
        program.stop()


def _unready(url: str) -> str:
    try:
        response = direct_requests.get(f"{url}/ping", timeout=5)
    except requests.RequestException as error:
        return f"nobody answers: {error}"
    return "" if response.ok else response.text
