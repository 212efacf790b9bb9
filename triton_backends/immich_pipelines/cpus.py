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

_IN_32_BITS: Final = frozenset({b"avx512_vnni", b"avx_vnni"})
"""Flags of instructions that multiply bytes and add the products up in 32 bits (VNNI)."""

_IN_16_BITS: Final = b"ssse3"
"""Flag of ``pmaddubsw``, which adds two products up in 16 bits; AVX2 and AVX-512 have it too."""


def available_cpus(own: Path = OWN_GROUP, groups: Path = GROUPS) -> int:
    """Return how many CPUs this process may use, at least one.

    Its affinity, and the quotas of its control group and of those around it (version 2): that of a container, or
    systemd's CPUQuota. A part of a CPU counts as one.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_quotas(own, groups)]))


@functools.cache
def pair_bits(cpuinfo: Path = CPUINFO) -> int:
    """Return in how many bits this CPU adds up two products of bytes (int8): 32, 16 or 0.

    32 with VNNI, by AVX-512 or AVX. Without it OpenVINO (by oneDNN) and ONNX Runtime multiply bytes with ``pmaddubsw``,
    which cuts the sum of two products off at 16 bits: 255 * 127 twice is 64,770, and becomes 32,767. Nothing but the
    answers tells. So such a CPU is for weights of which no two give more than 16 bits hold, whatever they are
    multiplied with. 0 where *cpuinfo* cannot be read, or knows no flags of x86.

    Both engines can compute in floats what other bytes stand for, and are told to: `onnx_metadata.too_wide`.
    """
    try:
        lines = cpuinfo.read_bytes().splitlines()
    except OSError:
        return 0
    # All CPUs of a machine have the same flags.
    flags = next((line for line in lines if line.startswith(b"flags")), b"").split()
    if not _IN_32_BITS.isdisjoint(flags):
        return 32
    return 16 if _IN_16_BITS in flags else 0


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
