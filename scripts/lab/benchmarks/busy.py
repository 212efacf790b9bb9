"""What was busy while requests were answered: each network's process, by Triton's statistics, and the CPUs, by role."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks.service import Gateway
from immich_triton.core import direct_requests
from immich_triton.server import processes

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
DECODING: Final = "immich_pipelines.decoding"


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


def card_memory(gateway: Gateway) -> str:
    """Say how many MiB of the card each of *gateway*'s processes holds, its context included, and others."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout
    roots = gateway.pid, gateway.triton_pid
    parts = [line.split(",") for line in found.splitlines() if line.count(",") == 1]
    return ", ".join(f"{_role(int(pid), *roots) or 'not ours'} {used.strip()}" for pid, used in parts)


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
    seconds: dict[str, float] = {}
    of_gateway, of_triton = gateway.pid, gateway.triton_pid
    for pid in processes.pids():
        if (role := _role(pid, of_gateway, of_triton)) is not None:
            seconds[role] = seconds.get(role, 0.0) + processes.cpu_seconds(pid)
    seconds["this client"] = sum(os.times()[:2])
    return dict(sorted(seconds.items()))


def _role(pid: int, gateway: int | None, triton: int | None) -> str | None:
    """Return what the process *pid* does; None when it is neither of the *gateway* nor of *triton*."""
    if pid == gateway:
        return "gateway"
    if pid == triton:
        return "tritonserver"
    if triton is None or processes.session(pid) != triton:
        return None
    arguments = processes.arguments(pid)
    if any(DECODING in part for part in arguments):
        return "decoding"
    # The process of a model has the path of its file as its first argument: NAME/1/model.onnx.
    path = Path(arguments[1] if len(arguments) > 1 else "")
    return path.parts[-3] if path.stem == "model" and len(path.parts) > 2 else "others"
