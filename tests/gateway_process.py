"""The real gateway for a test: ``mitmdump -s addons/immich_ml.py`` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import warm_python
from places import PROJECT
from warm_python import WarmProcess

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server import die_with_parent

ADDON = PROJECT / "addons" / "immich_ml.py"


@dataclass
class GatewayProcess:
    """A running gateway; ``script`` is the file that mitmproxy loaded."""

    url: str
    script: Path
    state_dir: Path
    log_file: Path
    process: subprocess.Popen[bytes] | WarmProcess
    metrics_url: str

    @property
    def pid(self) -> int:
        """Return the process id of mitmdump."""
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port, for a socket."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    @property
    def log(self) -> str:
        """Return what mitmdump printed so far."""
        return self.log_file.read_text(errors="replace")

    def whole_log(self) -> str:
        """Return the log, to say what is *not* in it: that it is empty, or comes late, must not look like silence.

        It ends with a line about a connection of our own, made now, unless mitmdump has ended.
        """
        if self.process.poll() is None:
            before = len(self.log)
            with socket.create_connection(self.address, 60) as client:
                ours = f":{client.getsockname()[1]}] "
                # Our addons have nothing logged of an ordinary connection.
                client.sendall(b"\0")
            marks = (f"{ours}client disconnect", f"{ours}Client closed connection before")
            assert eventually(lambda: any(mark in self.log[before:] for mark in marks)), "mitmdump does not log"
        assert "listening at" in self.log
        return self.log

    def rss(self) -> int:
        """Return the resident memory in bytes."""
        return self._memory("VmRSS")

    def growth(self) -> Callable[[], int]:
        """Watch the memory from now on: what is returned tells by how many bytes it has grown at its peak.

        Two looks would not see what was held between them and given back.
        """
        before = self.rss()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak is counted anew, see proc_pid_clear_refs(5)
        return lambda: self._memory("VmHWM") - before

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        (kilobytes,) = re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        return 1024 * int(kilobytes)

    def replace_script(self, text: str) -> None:
        """Put *text* in the place of the script in one step: mitmproxy looks every second, also at half a file."""
        new = self.script.with_name("new.py")
        new.write_text(text)
        new.replace(self.script)


def kept(directory: Path, secret: str, name: str = "secret") -> str:
    """Write a secret into a file of *directory*; return it as options want it, by its place."""
    file = directory / name
    file.write_text(f"{secret}\n")
    return f"file:{file}"


def command(*, port: int, mode: str, script: Path = ADDON, program: str = "mitmdump", **options: object) -> list[str]:
    """Return mitmdump's command line; *options* are mitmproxy options. *program* may be a path."""
    line = [
        str(Path(sys.executable).parent / program),
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


def refused_start(
    directory: Path, *, mode: str = "reverse:http://127.0.0.1:9", program: str = "mitmdump", **options: Any
) -> tuple[int, str]:
    """Start mitmdump with options that must stop it; return the exit code and what it printed."""
    options = {"immich_models": directory, "immich_state_dir": directory / "state", "confdir": directory, **options}
    if program == "mitmweb":
        options |= {"web_port": free_ports(1)[0], "web_open_browser": "false"}
    return ended(command(port=free_ports(1)[0], mode=mode, program=program, **options), directory)


def ended(line: list[str], directory: Path) -> tuple[int, str]:
    """Run a command line of `command` that ends by itself; return the exit code and what it printed."""
    log_file = directory / "ended.log"
    with running_mitmdump(line, log_file) as process:
        return process.wait(120), log_file.read_text(errors="replace")


def _start(line: list[str], log_file: Path, *, fresh: bool) -> subprocess.Popen[bytes] | WarmProcess:
    # mitmproxy prints without flushing: its last lines would be missing from a file, at times all of them.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    program = Path(line[0])
    if not fresh and program.parent == Path(sys.executable).parent and warm_python.can_run(program.name):
        return warm_python.start(line, environment, log_file)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            die_with_parent.wrap(line),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=log_file.parent,
        )


@contextmanager
def running_mitmdump(
    line: list[str], log_file: Path, *, fresh: bool = False
) -> Iterator[subprocess.Popen[bytes] | WarmProcess]:
    """Run a command line of `command` in the folder of its log; it ends with the block, however that ends.

    *fresh*: in a process of which the system, too, shows this command line.
    """
    process = _start(line, log_file, fresh=fresh)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_gateway(
    directory: Path,
    *,
    models: Path,
    triton_url: str,
    upstream: str,
    script: Path = ADDON,
    program: str = "mitmdump",
    fresh: bool = False,
    **options: object,
) -> Iterator[GatewayProcess]:
    """Start the gateway, wait until it answers, stop it at the end. *directory* takes its log and its state.

    *fresh* as for `running_mitmdump`.
    """
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
    with running_mitmdump(line, log_file, fresh=fresh) as process:
        metrics_url = f"http://127.0.0.1:{metrics_port}"
        gateway = GatewayProcess(f"http://127.0.0.1:{port}", script, state_dir, log_file, process, metrics_url)
        wait_until_answering(gateway)
        yield gateway


def wait_until_answering(gateway: GatewayProcess, timeout: float = 120) -> None:
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
