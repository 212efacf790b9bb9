"""Where a request's CPU time goes, process by process, and how many requests each could take at most."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import cpu_time
from benchmarks.load import Clients
from benchmarks.samples import Sample
from benchmarks.targets import Target


async def measure(
    target: Target, urls: Sequence[str], samples: Sequence[Sample], count: int, clients: int, show: Console
) -> dict[str, Any]:
    """Have *count* requests of *clients* answered and print a table; returns the figures for ``--json``.

    *urls*: where the gateway and Triton listen, on this machine. What a kind of process could take at most is said as
    if each had one thread that works and a CPU of its own; Triton's has more.
    """
    ours = Clients(target)
    await ours.run(list(islice(cycle(samples), clients)), clients)
    before = cpu_time.by_process(urls)
    run = await ours.run(list(islice(cycle(samples), count)), clients)
    table = Table("process", "processes", "CPU ms", "requests/s at most", title=f"{clients} clients, {run.rate:.1f}/s")
    results = {}
    after = cpu_time.by_process(urls)
    for name, (processes, seconds) in sorted(
        after.items(), key=lambda item: before.get(item[0], (0, 0.0))[1] - item[1][1]
    ):
        used = (seconds - before.get(name, (0, 0.0))[1]) / count
        if used > 0:
            results[name] = {"processes": processes, "cpu_ms": round(1000 * used, 3)}
            table.add_row(name, str(processes), f"{1000 * used:.2f}", f"{processes / used:.0f}")
    show.print(table)
    return results
