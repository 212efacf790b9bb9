"""Search: how fast queries are embedded, alone and while photos are indexed; whether images are batched."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import requests
from rich.console import Console
from rich.table import Table

from benchmarks.load import Clients, Contender, Run, Summary
from benchmarks.samples import Sample, queries
from benchmarks.targets import BenchError, Target
from immich_triton.core import direct_requests

QUERIES: Final = 40
INDEXERS: Final = 4
"""Image requests that run all the while: Immich's concurrency when an admin has raised it."""
BATCHERS: Final = 8
SETTLING: Final = 60
"""Seconds at most until Triton has computed what was sent before."""
PAUSE: Final = 0.05
"""Seconds between two queries while images run, so that the queries meet them in every phase."""


async def text(
    service: Target, encoder: Contender, images: Target, samples: Sequence[Sample], rounds: int, show: Console
) -> dict[str, Any]:
    """Measure queries one at a time: new, repeated, the encoder alone, and new ones while images are running.

    New means never asked before, in no round and in no earlier run: the gateway may keep what it answered. Returns the
    figures for ``--json``.
    """
    fresh, repeated, alone, busy = Summary(), Summary(), Summary(), Summary()
    never = secrets.token_hex(8)
    await Clients(service).run(queries(5, seed=f"{never} warm-up"), 1)
    for number in range(rounds):
        new = queries(QUERIES, seed=f"{never} idle {number}")
        with show.status(f"queries, round {number + 1} of {rounds}"):
            fresh.runs.append(await Clients(service).run(new, 1))
            repeated.runs.append(await Clients(service).run([new[0]] * QUERIES, 1))
            alone.runs.append(await encoder.run(new, 1))
            busy.runs.append(
                await _while_indexing(service, images, samples, queries(QUERIES, seed=f"{never} busy {number}"))
            )
    rows = {"encoder alone": alone, "new query": fresh, "repeated query": repeated, "new query, 4 images running": busy}
    table = Table("text", "p50 ms", "p99 ms", title=f"queries at concurrency 1, {rounds * QUERIES} of each")
    for name, summary in rows.items():
        table.add_row(name, f"{1000 * summary.percentile(50):.2f}", f"{1000 * summary.percentile(99):.2f}")
    slower = busy.percentile(50) / fresh.percentile(50)
    show.print(table)
    show.print(
        f"new query: encoder alone {1000 * (fresh.percentile(50) - alone.percentile(50)):+.2f} ms; "
        f"while {INDEXERS} images run: {slower:.2f} x idle"
    )
    return {**{name: summary.as_dict() for name, summary in rows.items()}, "busy_over_idle": round(slower, 3)}


async def _while_indexing(service: Target, images: Target, samples: Sequence[Sample], texts: Sequence[Sample]) -> Run:
    """Run *texts* one after the other while `INDEXERS` clients send images without a pause."""
    endless = itertools.cycle(samples)

    async def index() -> None:
        while True:
            await images.ask(next(endless))

    indexers = [asyncio.create_task(index()) for _ in range(INDEXERS)]
    try:
        # Until the first of them have been answered, images are not yet "running".
        await asyncio.sleep(1.0)
        run = await _paced(service, texts)
        for task in indexers:
            if task.done():
                task.result()
        return run
    finally:
        for task in indexers:
            task.cancel()
        await asyncio.gather(*indexers, return_exceptions=True)


async def _paced(target: Target, samples: Sequence[Sample]) -> Run:
    latencies = []
    for sample in samples:
        began = time.perf_counter()
        await target.ask(sample)
        latencies.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)
    return Run(sum(latencies), latencies)


async def batching(
    images: Target, samples: Sequence[Sample], metrics: str, encoder: str, show: Console
) -> dict[str, Any]:
    """Send images at concurrency 8 and tell from Triton's counters how many the encoder got at a time."""
    before = await _settled(metrics, encoder)
    started = time.perf_counter()
    await Clients(images).run(list(samples) * max(1, 64 // len(samples)), BATCHERS)
    seconds = time.perf_counter() - started
    after = await _settled(metrics, encoder)
    items, runs = (int(b - a) for a, b in zip(before, after, strict=True))
    if runs == 0:
        raise BenchError(f"{encoder} did not run at all, says {metrics}")
    show.print(
        f"batching at concurrency {BATCHERS}: {items} images in {runs} runs of {encoder}: {items / runs:.2f} a run, "
        f"{items / seconds:.2f} images/s"
    )
    return {"images": items, "executions": runs, "images_per_execution": round(items / runs, 3)}


async def _settled(metrics: str, model: str) -> tuple[float, float]:
    """Return `counters` when they stand still: images whose clients left are still computed, and counted late."""
    seen = counters(metrics, model)
    for _ in range(SETTLING):
        await asyncio.sleep(1)
        if (now := counters(metrics, model)) == seen:
            return now
        seen = now
    raise BenchError(f"{model} does not come to rest within {SETTLING} s: somebody else is using it")


def counters(metrics: str, model: str) -> tuple[float, float]:
    """Return Triton's nv_inference_count and nv_inference_exec_count of *model*. Raises `BenchError`."""
    try:
        text = direct_requests.get(f"{metrics}/metrics", timeout=10).text
    except requests.RequestException as error:
        raise BenchError(f"Triton's metrics at {metrics} cannot be read: {error}") from error
    sums = []
    for name in ("nv_inference_count", "nv_inference_exec_count"):
        values = re.findall(rf'^{name}{{[^}}]*model="{re.escape(model)}"[^}}]*}} (\S+)$', text, re.MULTILINE)
        if not values:
            raise BenchError(f"{metrics} has no {name} of {model}")
        sums.append(float(np.sum([float(value) for value in values])))
    return sums[0], sums[1]
