"""How many CPUs this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

OWN_GROUP: Final = Path("/proc/self/cgroup")
GROUPS: Final = Path("/sys/fs/cgroup")


def available_cpus(own: Path = OWN_GROUP, groups: Path = GROUPS) -> int:
    """Return how many CPUs this process may use, at least one.

    Its affinity, and the quotas of its control group and of those around it (version 2): that of a container, or
    systemd's CPUQuota. A part of a CPU counts as one.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_quotas(own, groups)]))


def _quotas(own: Path, groups: Path) -> Iterator[int]:
    for folder in _folders(own, groups):
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            yield -(-int(quota) // int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # no such file at the root of all groups, or the quota is "max"


def _folders(own: Path, groups: Path) -> Iterator[Path]:
    try:
        # Version 2 has one line, 0::/path; beside those of version 1 it is the one that begins with 0.
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
        path = next((line[3:] for line in lines if line.startswith("0::/")), "/")
    except OSError:
        path = "/"
    folder = groups / path.strip("/")
    yield folder
    while folder != groups and groups in folder.parents:
        folder = folder.parent
        yield folder
