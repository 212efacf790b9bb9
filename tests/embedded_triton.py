"""Start the real embedded Triton for a test: ``immich-triton triton`` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from places import PROJECT
from ports import free_ports as free_ports  # tests/e2e takes it from here

from immich_triton.server import die_with_parent

SCRIPTS = PROJECT / "scripts"
START_SECONDS = 120.0  # a loaded machine with two cores needs about 20 for all models


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Return whether *condition* becomes true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass
class Program:
    """One of our programs that runs until it is stopped; it ends with the test run, however that ends."""

    process: subprocess.Popen[bytes]
    console_path: Path

    @classmethod
    def start(cls, script: str, arguments: Sequence[object], console: Path) -> Program:
        """Start ``scripts/<script>``; what it prints goes to the file *console*."""
        console.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
        with console.open("wb") as output:
            process = subprocess.Popen(
                die_with_parent.wrap(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, console)

    @property
    def console(self) -> str:
        """What it printed so far."""
        return self.console_path.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait for *condition*. Fails with what was printed when the program ends, or after *seconds*."""
        eventually(lambda: condition() or self.process.poll() is not None, seconds)
        assert condition(), f"exit code {self.process.poll()}, printed:\n{self.console}"

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Stop it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()  # what it started ends with it
            return self.process.wait()


@dataclass
class TritonServer:
    """A running server. ``url`` and ``metrics_url`` have no trailing slash."""

    url: str
    metrics_url: str
    run_dir: Path
    program: Program

    @property
    def pid(self) -> int:
        """The process id of the server itself; it changes when the supervisor starts it again."""
        return int((self.run_dir / "triton.pid").read_text())

    @property
    def log(self) -> str:
        """Triton's own log so far."""
        return (self.run_dir / "triton.log").read_text(errors="replace")

    @property
    def console(self) -> str:
        """What ``run_triton.py`` printed so far."""
        return self.program.console

    def kill(self) -> None:
        """Kill the server with SIGKILL; the supervisor starts it again."""
        os.kill(self.pid, signal.SIGKILL)

    def started_again(self, before: int) -> bool:
        """Tell whether another process than *before* runs in its place, with every model loaded or failed."""
        try:
            another = self.pid != before
        except (FileNotFoundError, ValueError):  # between two processes there is no pid file, or an empty one
            return False
        return another and "triton: ready in " in self.console.rpartition("starting it again")[2]

    def wait_until_live(self) -> None:
        """Wait until it answers and the supervisor has said so, its last line. Fails with what that printed."""
        self.program.wait_until(lambda: "triton: ready in " in self.console)

    def stop(self) -> int:
        """Stop the server as a service manager does and return the supervisor's exit code."""
        return self.program.stop()


def launch(models: Path, run_dir: Path, ports: Sequence[int] = (), more: Sequence[object] = ()) -> TritonServer:
    """Start Triton over *models* on free ports, or the two given ones (HTTP, metrics), without waiting.

    *more* are further arguments of ``run_triton.py``.
    """
    http_port, metrics_port = ports or free_ports(2)
    arguments = ["--models", models, "--run-dir", run_dir, "--http-port", http_port, "--metrics-port", metrics_port]
    program = Program.start("run_triton.py", [*arguments, *more], run_dir / "console.log")
    return TritonServer(f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}", run_dir.resolve(), program)


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
