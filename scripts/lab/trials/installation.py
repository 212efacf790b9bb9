"""The supervisor with Triton and the gateway, as `make run` starts it, on free ports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from immich_triton.core import direct_requests
from immich_triton.export.repository import PROJECT
from immich_triton.server import die_with_parent

START_SECONDS = 240.0


def free_ports(count: int) -> list[int]:
    """Return *count* different TCP ports that are free on 127.0.0.1 now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether *condition* becomes true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass
class Installation:
    """A running supervisor. Addresses have no trailing slash."""

    url: str
    triton_url: str
    metrics_url: str
    run_dir: Path
    log_path: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """What the supervisor and the gateway printed."""
        return self.log_path.read_text(errors="replace")

    @property
    def triton_pid(self) -> int:
        """Triton's process id; it changes when the supervisor starts it again."""
        return int((self.run_dir / "triton" / "triton.pid").read_text())

    @property
    def gateway_pid(self) -> int:
        """The gateway's process id."""
        return int((self.run_dir / "gateway.pid").read_text())

    def ready(self) -> bool:
        """Whether every route is ready."""
        try:
            return direct_requests.get(f"{self.url}/ping", timeout=5).ok
        except requests.RequestException:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM, *, group: bool = False) -> int:
        """Stop it, by a signal to the supervisor or to its whole process group; return the exit code."""
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, number)
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def gauges(self, *names: str) -> Mapping[str, float]:
        """Return the gateway's metrics whose name is one of *names* (summed over their labels)."""
        sums = dict.fromkeys(names, 0.0)
        for line in direct_requests.get(f"{self.metrics_url}/metrics", timeout=5).text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.partition("{")[0] in sums:
                sums[name.partition("{")[0]] += float(value)
        return sums


@contextlib.contextmanager
def running(
    models: Path, directory: Path, upstream: str, options: Mapping[str, object], programs: Sequence[str] = ()
) -> Iterator[Installation]:
    """Run the supervisor over *models* while the block lasts; *options* are mitmproxy options."""
    port, metrics, triton, triton_metrics = free_ports(4)
    directory.mkdir(parents=True, exist_ok=True)
    options = {"immich_state_dir": directory / "state", "confdir": directory / "confdir", **options}
    arguments = {
        "--models": models,
        "--upstream": upstream,
        "--port": port,
        "--metrics-port": metrics,
        "--triton-http-port": triton,
        "--triton-metrics-port": triton_metrics,
        "--run-dir": directory / "run",
        "--options": " ".join(f"--set {name}={value}" for name, value in options.items()),
    }
    command = [sys.executable, str(PROJECT / "immich-triton run"), "--no-export", *programs]
    command += [f"{name}={value}" for name, value in arguments.items()]
    log_path = directory / "console.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            die_with_parent.wrap(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    base = "http://127.0.0.1"
    one = Installation(f"{base}:{port}", f"{base}:{triton}", f"{base}:{metrics}", directory / "run", log_path, process)
    try:
        if not eventually(lambda: one.ready() or process.poll() is not None, START_SECONDS) or not one.ready():
            raise RuntimeError(f"the installation does not answer:\n{one.log}")
        yield one
    finally:
        one.stop()
