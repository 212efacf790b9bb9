"""Load: contenders make runs over the same samples, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.cpu_time import Clock
from benchmarks.samples import Sample
from benchmarks.targets import BenchError, Target


@dataclass(frozen=True)
class Run:
    """One pass over the samples: seconds it took, the seconds of each request, and CPU seconds where they are known."""

    seconds: float
    latencies: Sequence[float]
    cpu: float | None = None

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds


@dataclass
class Summary:
    """The runs of one target at one concurrency."""

    runs: list[Run] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests per second, the median of the runs."""
        return float(np.median([run.rate for run in self.runs]))

    def percentile(self, percent: float) -> float:
        """Seconds below which *percent* of all requests stayed."""
        return float(np.percentile([latency for run in self.runs for latency in run.latencies], percent))

    @property
    def cpu(self) -> float | None:
        """CPU seconds of a request, the median of the runs; None where they are not known."""
        known = [run.cpu / len(run.latencies) for run in self.runs if run.cpu is not None]
        return float(np.median(known)) if known else None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the figures for ``--json``; seconds."""
        return {
            "per_second": round(self.rate, 4),
            "p50": round(self.percentile(50), 5),
            "p99": round(self.percentile(99), 5),
            "cpu": None if self.cpu is None else round(self.cpu, 5),
            "requests": sum(len(run.latencies) for run in self.runs),
        }


def ratio(ours: Summary, theirs: Summary) -> float:
    """Return how many times faster ours is: the median over the rounds, so that drift of the machine cancels out."""
    return float(np.median([a.rate / b.rate for a, b in zip(ours.runs, theirs.runs, strict=True)]))


class Contender(Protocol):
    """Makes a run over samples."""

    name: str

    async def run(self, samples: Sequence[Sample], concurrency: int) -> Run:
        """Answer *samples*, *concurrency* at a time. Raises `BenchError` with the first failure."""


class Clients:
    """So many clients of a target, each with one request at a time; *clock* is the target's CPU time."""

    def __init__(self, target: Target, clock: Clock | None = None) -> None:
        self.name = target.name
        self._target = target
        self._clock = clock

    async def run(self, samples: Sequence[Sample], concurrency: int) -> Run:
        """Let *concurrency* clients work off *samples*."""
        waiting = iter(samples)
        latencies: list[float] = []

        async def client() -> None:
            for sample in waiting:
                began = time.perf_counter()
                await self._target.ask(sample)
                latencies.append(time.perf_counter() - began)

        before = self._clock() if self._clock else 0.0
        started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(client())
        except* BenchError as errors:
            raise errors.exceptions[0] from None
        seconds = time.perf_counter() - started
        return Run(seconds, latencies, self._clock() - before if self._clock else None)


async def take_turns(
    contenders: Sequence[Contender], samples: Sequence[Sample], concurrency: int, rounds: int
) -> dict[str, Summary]:
    """Let every contender run *rounds* times, A B A B …, every other round in the opposite order."""
    summaries = {contender.name: Summary() for contender in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            summaries[contender.name].runs.append(await contender.run(samples, concurrency))
    return summaries
