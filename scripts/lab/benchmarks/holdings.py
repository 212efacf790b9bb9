"""What each process of a running gateway, its Triton and their supervisor holds in memory."""

from __future__ import annotations

import contextlib
import os
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.service import Gateway
from benchmarks.targets import BenchError
from immich_triton.server import processes

STUB: Final = "triton_python_backend_stub"
POOL: Final = "immich_pipelines.decoding.server"


@dataclass(frozen=True)
class Holding:
    """Bytes of one process; ``name`` says what it is, the same for those that do the same."""

    name: str
    rss: int
    pss: int
    anonymous: int


def of(gateway: Gateway) -> list[Holding]:
    """Return what all processes hold. Raises `BenchError` when they are not ours to look at."""
    members = _members(gateway)
    found = [Holding(name, *sizes) for pid, name in members.items() if (sizes := processes.rollup(pid))]
    if not found:
        raise BenchError("the processes cannot be looked at: they belong to another user")
    return found


def has_models(gateway: Gateway, *, or_decoders: bool) -> bool:
    """Tell whether a process is left that serves a model, *or decoders*, which stay for a minute."""
    kinds = ("model ", "decoding") if or_decoders else ("model ",)
    return any(name.startswith(kinds) for name in _members(gateway).values())


def cpu_seconds(gateway: Gateway) -> float:
    """Return the CPU time of all processes that run now."""
    return sum(map(processes.cpu_seconds, _members(gateway)))


def as_figures(held: list[Holding]) -> list[dict[str, Any]]:
    """Return them for JSON."""
    return [vars(one) for one in held]


def drop_from_cache(models: Path) -> None:
    """Have the kernel forget the files of *models* and of this environment, but for those that somebody maps."""
    os.sync()
    packages = Path(sysconfig.get_path("purelib"))
    for path in [*models.rglob("*"), *packages.rglob("*")]:
        with contextlib.suppress(OSError):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)


def _members(gateway: Gateway) -> dict[int, str]:
    roots = {"gateway": gateway.pid, "Triton": gateway.triton_pid}
    named: dict[int, str] = {}
    for root, pid in roots.items():
        if pid is None:
            raise BenchError(f"no process of {root} was found on this machine; memory cannot be measured")
        for member in {*processes.tree(pid), *(one for one in processes.pids() if processes.session(one) == pid)}:
            named[member] = root if member == pid else _name(member)
    if (supervisor := processes.parent(roots["gateway"] or 0)) is not None:
        named[supervisor] = "supervisor"
    return named


def _name(pid: int) -> str:
    line = processes.arguments(pid)
    if line and STUB in line[0] and (model := re.search(r"/([^/]+)/\d+/[^/]+$|/([^/]+)/[^/]*$", line[1])):
        instance = line[8] if len(line) > 8 else model[0]
        return f"model {re.sub(r'_\d+_\d+$', '', instance)}"
    if POOL in line:
        return "decoding"
    return " ".join(line[:2])[:60] or "ended"
