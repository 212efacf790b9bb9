"""Who listens on a port, and what a process and all below it hold in memory. Linux: reads ``/proc``."""

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
    """Bytes. ``rss`` counts a page in every process that maps it, ``pss`` once, divided among them."""

    rss: int
    pss: int
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
    holders = [pid for pid in _pids() if inodes & set(_links(pid))]
    return min(holders, default=None, key=_started)


def tree(root: int) -> list[int]:
    """Return *root* and its descendants."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        parent = _stat(pid, 1)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory(root: int) -> Memory:
    """Return what *root* and its descendants hold. Raises ProcessLookupError when it is gone."""
    totals = [sizes for pid in tree(root) if (sizes := _rollup(pid))]
    if not totals:
        raise ProcessLookupError(f"process {root} is gone, or belongs to another user")
    return Memory(sum(rss for rss, _ in totals), sum(pss for _, pss in totals), len(totals))


def _rollup(pid: int) -> tuple[int, int] | None:
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:  # ended meanwhile
        return None
    kilobytes = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB$", text, re.MULTILINE))
    return int(kilobytes["Rss"]) * 1024, int(kilobytes["Pss"]) * 1024


def _pids() -> Iterator[int]:
    return (int(path.name) for path in PROC.iterdir() if path.name.isdigit())


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
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[index])
    return None
