"""What grows when something leaks: memory, open files, shared memory, tasks."""

from __future__ import annotations

import os
import re
import signal
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.program import eventually
from immich_triton.server import processes
from trials.installation import Installation

WARM_UP: Final = 0.3
"""The part of the run after which nothing may grow any more."""

WINDOW: Final = 0.2
"""The parts that are compared, after the warm-up and at the end."""

LAST_LINE: Final = 52 * "*"
"""Of what mitmproxy prints on SIGUSR1 (``mitmproxy/utils/debug.py``)."""


@dataclass(frozen=True)
class Sample:
    """One look, in bytes. Memory is what is not a file: how many processes share a library is not our growth."""

    gateway: int
    triton: int
    files: int
    shared: int


def sample(site: Installation) -> Sample:
    """Look at the gateway, at Triton with its stubs, and at their shared memory."""
    gateway, triton = site.gateway_pid, site.triton_pid
    port = site.triton_url.rpartition(":")[2]
    return Sample(
        gateway=processes.memory(gateway).anonymous,
        triton=processes.memory(triton).anonymous,
        files=len(list(Path(f"/proc/{gateway}/fd").iterdir())),
        shared=sum(map(_size, Path("/dev/shm").glob(f"immich_triton_{port}_*"))),  # noqa: S108
    )


def growth(values: list[int]) -> tuple[float, float, float]:
    """Return the median after the warm-up, the median at the end, and the growth between them (0.05 is 5 %)."""
    count = len(values)
    early = values[int(count * WARM_UP) : max(int(count * (WARM_UP + WINDOW)), int(count * WARM_UP) + 1)]
    late = values[-max(int(count * WINDOW), 1) :]
    before, after = statistics.median(early), statistics.median(late)
    return before, after, after / before - 1 if before else 0.0


def tasks(site: Installation) -> list[str]:
    """Return the names of the gateway's asyncio tasks that belong to a request or a connection.

    mitmproxy prints all tasks on SIGUSR1. Raises RuntimeError when it does not, to the last line.
    """
    offset = len(site.log)

    def dump() -> tuple[str, str, str]:
        return site.log[offset:].partition("\nTasks\n=======")[2].partition("\n" + LAST_LINE)

    os.kill(site.gateway_pid, signal.SIGUSR1)
    if not eventually(lambda: bool(dump()[1]), 60):
        raise RuntimeError(f"the gateway does not tell its tasks:\n{site.log[offset:]}")
    listed = dump()[0]
    names = [line.strip() for line in listed.splitlines() if line and not line.startswith(" ")]
    return [name for name in names if re.match(r"predict|call |handle_hook|\S+:\d+:", name)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a process has just given it back
        return 0
