"""How many CPUs this process may use, and what they can."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

OWN_GROUP: Final = Path("/proc/self/cgroup")
GROUPS: Final = Path("/sys/fs/cgroup")
CPUINFO: Final = Path("/proc/cpuinfo")

_VNNI: Final = frozenset({b"avx512_vnni", b"avx_vnni"})
"""Flags of instructions that multiply bytes and add the products up in 32 bits."""


def available_cpus(own: Path = OWN_GROUP, groups: Path = GROUPS) -> int:
    """Return how many CPUs this process may use, at least one.

    Its affinity, and the quotas of its control group and of those around it (version 2): that of a container, or
    systemd's CPUQuota. A part of a CPU counts as one.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_quotas(own, groups)]))


@functools.cache
def multiplies_bytes(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether networks of bytes (int8) may be computed as such here: this CPU has VNNI, by AVX-512 or AVX.

    Without it OpenVINO (by oneDNN) and ONNX Runtime multiply bytes with ``vpmaddubsw``, which cuts the sum of two
    products off at 16 bits: 255 * 127 twice is 64,770, and becomes 32,767. Nothing but the answers tells. Both can
    compute in floats what the bytes stand for, and are told to where this is False; so it is where *cpuinfo* cannot be
    read, or knows no flags of x86.
    """
    try:
        lines = cpuinfo.read_bytes().splitlines()
    except OSError:
        return False
    # All CPUs of a machine have the same flags.
    flags = next((line for line in lines if line.startswith(b"flags")), b"")
    return not _VNNI.isdisjoint(flags.split())


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
