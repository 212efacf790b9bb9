"""What was busy while requests were answered: each network's process, by Triton's statistics, and the CPUs, by role."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from benchmarks import cpu_time
from benchmarks.service import Gateway
from immich_triton.core import direct_requests

NANOSECONDS: Final = 1e9


@dataclass(frozen=True)
class Busy:
    """Seconds so far at the monotonic time *at*: of networks, and of the CPUs."""

    at: float
    networks: Mapping[str, float]
    """While an instance of the network worked on a batch, the copies of its inputs and outputs included."""
    cpus: Mapping[str, float]


SHOWN: Final = 0.005
"""Of a core."""


def look(gateway: Gateway, networks: Iterable[str]) -> Busy:
    """Return what *gateway*, its Triton and everything that belongs to them have done so far."""
    return Busy(perf_counter(), {name: _network_seconds(gateway.triton, name) for name in networks}, _cpu(gateway))


def between(before: Busy, after: Busy, answered: int) -> str:
    """Say how busy everything was, each network in ms for one of the *answered* requests too."""
    wall = after.at - before.at
    networks = {name: after.networks[name] - before.networks[name] for name in after.networks}
    cpus = {role: after.cpus[role] - before.cpus.get(role, 0) for role in after.cpus}
    told = [
        f"{name} {seconds / wall:.0%} ({1000 * seconds / max(1, answered):.1f} ms a request)"
        for name, seconds in networks.items()
        if seconds
    ]
    return (
        ", ".join(told)
        + "; cores: "
        + ", ".join(f"{role} {seconds / wall:.2f}" for role, seconds in cpus.items() if seconds / wall >= SHOWN)
    )


def card_memory() -> str:
    """Say how many MiB of the card each process holds, its context included; see `cpu_time.by_process` for names."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout
    parts = [line.split(",") for line in found.splitlines() if line.count(",") == 1]
    return ", ".join(f"{cpu_time.name_of(int(pid))} {used.strip()}" for pid, used in parts)


def _network_seconds(triton: str, name: str) -> float:
    answer = direct_requests.get(f"{triton}/v2/models/{name}/stats", timeout=5)
    if not answer.ok:
        return 0.0  # it is not loaded: no route needs it
    return sum(
        float(batch[part]["ns"]) / NANOSECONDS
        for model in answer.json()["model_stats"]
        for batch in model.get("batch_stats", [])
        for part in ("compute_input", "compute_infer", "compute_output")
    )


def _cpu(gateway: Gateway) -> dict[str, float]:
    seconds = {name: used for name, (_, used) in cpu_time.by_process([gateway.url, gateway.triton]).items()}
    return {**dict(sorted(seconds.items())), "this client": sum(os.times()[:2])}
