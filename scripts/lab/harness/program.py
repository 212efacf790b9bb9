"""One of our programs, started and watched."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from immich_triton.core.command import COMMAND
from immich_triton.server import die_with_parent

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
    """One of our programs that runs until it is stopped; it ends with whoever started it, however that ends."""

    process: subprocess.Popen[bytes]
    console_path: Path

    @classmethod
    def start(
        cls,
        command: str,
        arguments: Sequence[object],
        console: Path,
        program: Sequence[object] = COMMAND,
        env: Mapping[str, str] | None = None,
    ) -> Program:
        """Start *program* (``immich-triton``) *command*; what it prints goes to the file *console*."""
        console.parent.mkdir(parents=True, exist_ok=True)
        line = [*map(str, program), command, *map(str, arguments)]
        with console.open("wb") as output:
            process = subprocess.Popen(
                die_with_parent.wrap(line),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=env,
            )
        return cls(process, console)

    @property
    def console(self) -> str:
        """What it printed so far."""
        return self.console_path.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait for *condition*. Raises AssertionError with what was printed when it ends first, or after *seconds*."""
        eventually(lambda: condition() or self.process.poll() is not None, seconds)
        if not condition():
            raise AssertionError(f"exit code {self.process.poll()}, printed:\n{self.console}")

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Stop it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()  # what it started ends with it
            return self.process.wait()
