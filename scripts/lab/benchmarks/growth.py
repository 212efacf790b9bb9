"""Does memory grow? Of the gateway over many requests, of Triton over images of many sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.load import Clients
from benchmarks.samples import Sample, odd_sizes, weightless
from benchmarks.service import Gateway
from benchmarks.targets import BenchError, Target
from immich_triton.server import processes

STEPS: Final = 10
GATEWAY_CLIENTS: Final = 8
TRITON_CLIENTS: Final = 2
TRITON_WARM_UP: Final = 50
MEGABYTE: Final = 1 << 20


async def measure(
    gateway: Gateway, target: Target, requests: int, images: int, warm_up: int, show: Console
) -> dict[str, Any]:
    """Measure and print a table; returns the figures for ``--json``. Raises `BenchError` without local processes.

    *warm_up* requests go first and are not counted as growth: caches fill, connections open, and the garbage collector
    finds its rhythm.
    """
    warm = [weightless(300)] * warm_up
    same = [weightless(300)] * requests
    results = {
        "gateway": await _watch("gateway", gateway.pid, target, warm, same, GATEWAY_CLIENTS, show),
    }
    if images:
        sizes = odd_sizes(TRITON_WARM_UP + images, seed=1)
        warm, rest = sizes[:TRITON_WARM_UP], sizes[TRITON_WARM_UP:]
        results["triton"] = await _watch("Triton", gateway.triton_pid, target, warm, rest, TRITON_CLIENTS, show)
    return results


def at_rest(gateway: Gateway, show: Console) -> dict[str, Any]:
    """Print what gateway and Triton hold now, all processes together."""
    table = Table("memory", "RSS MiB", "PSS MiB", "processes")
    results = {}
    for name, pid in (("gateway", gateway.pid), ("Triton", gateway.triton_pid)):
        if pid is None:
            table.add_row(name, "not on this machine, or not ours", "", "")
            continue
        now = processes.memory(pid)
        results[name] = {"rss": now.rss, "pss": now.pss, "processes": now.processes}
        table.add_row(name, f"{now.rss / MEGABYTE:.0f}", f"{now.pss / MEGABYTE:.0f}", str(now.processes))
    show.print(table)
    return results


async def _watch(
    name: str,
    pid: int | None,
    target: Target,
    warm_up: Sequence[Sample],
    samples: Sequence[Sample],
    clients: int,
    show: Console,
) -> dict[str, Any]:
    """Send *samples* and look at the memory of *pid* and its descendants before, after, and between."""
    if pid is None:
        raise BenchError(f"no process of {name} was found on this machine; memory cannot be measured")
    load = Clients(target)
    fresh = processes.memory(pid)
    with show.status(f"warming up: {len(warm_up)} requests"):
        await load.run(warm_up, clients)
    sizes = [processes.memory(pid)]
    step = max(1, len(samples) // STEPS)
    with Progress(console=show, transient=True) as progress:
        for start in progress.track(range(0, len(samples), step), description=f"memory of {name}"):
            await load.run(samples[start : start + step], clients)
            sizes.append(processes.memory(pid))
    growth = sizes[-1].pss / sizes[0].pss - 1
    later = sizes[-1].pss / sizes[len(sizes) // 2].pss - 1
    table = Table("requests", "PSS MiB", "RSS MiB", title=f"{name}: {growth:+.1%} over {len(samples)} requests")
    table.add_row(f"-{len(warm_up)}", f"{fresh.pss / MEGABYTE:.1f}", f"{fresh.rss / MEGABYTE:.1f}")
    for index, size in enumerate(sizes):
        count = min(index * step, len(samples))
        table.add_row(str(count), f"{size.pss / MEGABYTE:.1f}", f"{size.rss / MEGABYTE:.1f}")
    show.print(table)
    return {
        "requests": len(samples),
        "warm_up": len(warm_up),
        "pss_before_warm_up": fresh.pss,
        "pss": [size.pss for size in sizes],
        "rss": [size.rss for size in sizes],
        "growth": round(growth, 5),
        "growth_second_half": round(later, 5),
    }
