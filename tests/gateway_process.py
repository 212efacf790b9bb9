"""The real gateway for a test: ``mitmdump -s addons/immich_ml.py`` in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from embedded_triton import free_ports
from toolbox import die_with_parent

PROJECT = Path(__file__).resolve().parents[1]
ADDON = PROJECT / "addons" / "immich_ml.py"


@dataclass
class GatewayProcess:
    """A running gateway; ``script`` is the file that mitmproxy loaded."""

    url: str
    script: Path
    state_dir: Path
    log_file: Path
    process: subprocess.Popen[bytes]
    metrics_url: str

    @property
    def pid(self) -> int:
        """Return the process id of mitmdump."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Return what mitmdump printed so far."""
        return self.log_file.read_text(errors="replace")

    def rss(self) -> int:
        """Return the resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096


def command(*, port: int, mode: str, script: Path = ADDON, program: str = "mitmdump", **options: object) -> list[str]:
    """Return mitmdump's command line; *options* are mitmproxy options."""
    line = [
        str(Path(sys.executable).with_name(program)),
        "-s",
        str(script),
        "--mode",
        mode,
        "--listen-host",
        "127.0.0.1",
    ]
    line += ["-p", str(port)]
    for name, value in options.items():
        line += ["--set", f"{name}={value}"]
    return line


@contextmanager
def running_gateway(
    directory: Path,
    *,
    models: Path,
    triton_url: str,
    upstream: str,
    script: Path = ADDON,
    program: str = "mitmdump",
    **options: object,
) -> Iterator[GatewayProcess]:
    """Start the gateway, wait until it answers, stop it at the end. *directory* takes its log and its state."""
    port, metrics_port = free_ports(2)
    log_file = directory / "gateway.log"
    state_dir = directory / "state"
    options = {
        "immich_models": models,
        "immich_triton_url": triton_url,
        "immich_state_dir": state_dir,
        "immich_metrics_listen": f"127.0.0.1:{metrics_port}",
        "confdir": directory / "confdir",
        **options,
    }
    line = command(port=port, mode=f"reverse:{upstream}", script=script, program=program, **options)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            die_with_parent.wrap(line), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory
        )
    gateway = GatewayProcess(
        f"http://127.0.0.1:{port}", script, state_dir, log_file, process, f"http://127.0.0.1:{metrics_port}"
    )
    try:
        wait_until_answering(gateway)
        yield gateway
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_answering(gateway: GatewayProcess, timeout: float = 60) -> None:
    """Wait until ``/ping`` is answered at all, ready or not."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if gateway.process.poll() is not None:
            raise AssertionError(f"mitmdump ended with {gateway.process.returncode}:\n{gateway.log}")
        try:
            requests.get(f"{gateway.url}/ping", timeout=5)
        except requests.RequestException:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the gateway does not answer:\n{gateway.log}")
