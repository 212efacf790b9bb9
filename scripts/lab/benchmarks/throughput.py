"""Images per second and latency at rising concurrency, ours against the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.load import Contender, Summary, ratio, take_turns
from benchmarks.samples import Sample

Others = Callable[[int], Sequence[Contender]]
"""Gives who is compared with at a concurrency; RapidOCR shares its threads out among that many workers."""

REQUESTS_PER_CLIENT: Final = 6
"""At least so many in a round: with fewer, filling the queue and its last request alone weigh more than the service."""


async def measure(
    ours: Contender, others: Others, samples: Sequence[Sample], concurrencies: Sequence[int], rounds: int, show: Console
) -> dict[str, Any]:
    """Measure and print a table; returns the figures for ``--json``."""
    results: dict[str, Any] = {}
    table = Table(
        "concurrency",
        "who",
        "images/s",
        "p50 s",
        "p99 s",
        "CPU ms",
        "ours is",
        title=f"{len(samples)} images, {rounds} rounds",
    )
    for concurrency in concurrencies:
        contenders = [ours, *others(concurrency)]
        for contender in contenders:
            # Not measured: shapes are compiled, caches filled, stock loads its models.
            with show.status(f"warming up {contender.name} at concurrency {concurrency}"):
                await contender.run(samples, concurrency)
        passes = -(-REQUESTS_PER_CLIENT * concurrency // len(samples))
        with show.status(f"{rounds} rounds at concurrency {concurrency}"):
            summaries = await take_turns(contenders, list(samples) * passes, concurrency, rounds)
        results[str(concurrency)] = _figures(ours.name, summaries)
        for name, summary in summaries.items():
            faster = "" if name == ours.name else f"{ratio(summaries[ours.name], summary):.2f}x"
            figures = (f"{summary.rate:.2f}", f"{summary.percentile(50):.3f}", f"{summary.percentile(99):.3f}")
            cpu = "" if summary.cpu is None else f"{1000 * summary.cpu:.0f}"
            table.add_row(str(concurrency), name, *figures, cpu, faster)
        table.add_section()
    show.print(table)
    return results


def _figures(ours: str, summaries: dict[str, Summary]) -> dict[str, Any]:
    figures: dict[str, Any] = {name: dict(summary.as_dict()) for name, summary in summaries.items()}
    for name, summary in summaries.items():
        if name != ours:
            figures[name]["ours_is_faster_by"] = round(ratio(summaries[ours], summary), 3)
    return figures
