"""Start the real embedded Triton for a test: ``immich-triton triton`` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.ports import free_ports
from harness.program import Program


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
        """What ``immich-triton triton`` printed so far."""
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

    def stop_at_once(self) -> None:
        """Stop the supervisor, and the server without the seconds in which it would unload its models.

        How a server ends well is what test_run_triton.py is about.
        """
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid = self.pid
            # First: a supervisor that is about to stop does not start another server.
            self.program.process.send_signal(signal.SIGTERM)
            os.kill(pid, signal.SIGKILL)
        self.stop()


def launch(models: Path, run_dir: Path, ports: Sequence[int] = (), more: Sequence[object] = ()) -> TritonServer:
    """Start Triton over *models* on free ports, or the two given ones (HTTP, metrics), without waiting.

    *more* are further arguments of ``immich-triton triton``.
    """
    http_port, metrics_port = ports or free_ports(2)
    arguments = ["--models", models, "--run-dir", run_dir, "--http-port", http_port, "--metrics-port", metrics_port]
    program = Program.start("triton", [*arguments, *more], run_dir / "console.log")
    return TritonServer(f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}", run_dir.resolve(), program)


@contextlib.contextmanager
def running(models: Path, run_dir: Path) -> Iterator[TritonServer]:
    """Run Triton over *models* while the block lasts; it is live when the block begins."""
    server = launch(models, run_dir)
    try:
        server.wait_until_live()
        yield server
    finally:
        server.stop_at_once()


StartTriton = Callable[[Path], contextlib.AbstractContextManager[TritonServer]]
