"""The supervisor with Triton and the gateway, as `immich-triton run` starts it, on free ports."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from harness.ports import free_ports
from harness.program import Program, eventually
from immich_triton.core import direct_requests

START_SECONDS = 240.0


@dataclass
class Installation:
    """A running supervisor. Addresses have no trailing slash."""

    url: str
    triton_url: str
    metrics_url: str
    run_dir: Path
    program: Program

    @property
    def log(self) -> str:
        """What the supervisor and the gateway printed."""
        return self.program.console

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor's process."""
        return self.program.process

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
    line = ["--no-export", *programs, *(f"{name}={value}" for name, value in arguments.items())]
    program = Program.start("run", line, directory / "console.log")
    base = "http://127.0.0.1"
    one = Installation(f"{base}:{port}", f"{base}:{triton}", f"{base}:{metrics}", directory / "run", program)
    try:
        ended = program.process.poll
        if not eventually(lambda: one.ready() or ended() is not None, START_SECONDS) or not one.ready():
            raise RuntimeError(f"the installation does not answer:\n{one.log}")
        yield one
    finally:
        one.stop()
