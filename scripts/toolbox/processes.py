"""Processes: who listens on a port, whose child one is, what one and all below it hold in memory. Reads ``/proc``."""

from __future__ import annotations

import contextlib
import re
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
    return min(holders, default=None, key=_started)


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
    """Return what *root* and its descendants hold. Raises ProcessLookupError when it is gone."""
    totals = [sizes for pid in tree(root) if (sizes := _rollup(pid))]
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


def _rollup(pid: int) -> tuple[int, int, int] | None:
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


def _started(pid: int) -> int:
    return _stat(pid, 19) or 0


def _stat(pid: int, index: int) -> int | None:
    """Read a field of ``/proc/PID/stat``, counted from the state, which follows the name in parentheses."""
    with contextlib.suppress(OSError, IndexError):
        return int((PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[index])
    return None
