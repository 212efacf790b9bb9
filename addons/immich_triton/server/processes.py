"""Processes: who listens on a port, whose child one is, what it does and holds in memory. Reads ``/proc``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
LISTENING: Final = "0A"


@dataclass(frozen=True)
class Memory:
    """Bytes. ``rss`` counts a page in every process that maps it, ``pss`` once, divided among them.

    ``anonymous`` leaves out what is a file's, and so how many processes share a library.
    """

    rss: int
    pss: int
    anonymous: int
    processes: int


def listener(port: int) -> int | None:
    """Return the process that listens on TCP *port*, the oldest one when several share it; None when we see none."""
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    holders = [pid for pid in pids() if inodes & set(_links(pid))]
    return min(holders, default=None, key=started)


def tree(root: int) -> list[int]:
    """Return *root* and its descendants."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        above = parent(pid)
        if above is not None:
            children.setdefault(above, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory(root: int) -> Memory:
    """Return what *root* and its descendants hold, and others of its session. Raises ProcessLookupError when gone.

    The processes that decode images for Triton are no descendants of it, but belong to its session.
    """
    members = {*tree(root), *(pid for pid in pids() if session(pid) == root)}
    totals = [sizes for pid in members if (sizes := rollup(pid))]
    if not totals:
        raise ProcessLookupError(f"process {root} is gone, or belongs to another user")
    rss, pss, anonymous = map(sum, zip(*totals, strict=True))
    return Memory(rss, pss, anonymous, len(totals))


def pids() -> Iterator[int]:
    """Yield all processes that are seen from here."""
    return (int(path.name) for path in PROC.iterdir() if path.name.isdecimal())


def parent(pid: int) -> int | None:
    """Return the parent of a process; None when it has ended."""
    return _stat(pid, 1)


def session(pid: int) -> int | None:
    """Return the session of a process, named after the one that began it; None when it has ended."""
    return _stat(pid, 3)


def started(pid: int) -> int:
    """Return when a process was started, in ticks since the boot; 0 when it has ended. Process ids begin anew."""
    return _stat(pid, 19) or 0


def state(pid: int) -> str | None:
    """Return the kernel's letter for what a process does (``T`` stopped, ``Z`` a zombie, see proc(5)); None if gone."""
    fields = _fields(pid)
    return fields[0].decode() if fields else None


def arguments(pid: int) -> list[str]:
    """Return the command line of a process; empty when it has ended, also when nobody has waited for it yet."""
    try:
        line = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return line.decode("utf-8", "surrogateescape").split("\0")[:-1]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used so far; 0 when it has ended."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def how_it_ended(code: int) -> str:
    """Return an exit code of `subprocess` in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def kill_tree(root: int) -> None:
    """Kill *root* and its descendants at once; what was stopped is no exception."""
    for pid in tree(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def rollup(pid: int) -> tuple[int, int, int] | None:
    """Return what a process holds, see `Memory`: RSS, PSS, anonymous; None when it is gone, or another user's."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:  # ended meanwhile
        return None
    kilobytes = dict(re.findall(r"^(Rss|Pss|Anonymous):\s+(\d+) kB$", text, re.MULTILINE))
    return int(kilobytes["Rss"]) * 1024, int(kilobytes["Pss"]) * 1024, int(kilobytes["Anonymous"]) * 1024


def _links(pid: int) -> Iterable[str]:
    with contextlib.suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(descriptor.readlink())


def _stat(pid: int, index: int) -> int | None:
    """Read a field of ``/proc/PID/stat``, counted from the state, which follows the name in parentheses."""
    fields = _fields(pid)
    return int(fields[index]) if fields else None


def _fields(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:  # ended meanwhile
        return []
