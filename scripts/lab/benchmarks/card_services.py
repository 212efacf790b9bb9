"""The gateway on a card, task by task, and stock beside it: first requests, answers, rates, what was busy, memory."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks import busy, card
from benchmarks.samples import Sample, odd_sizes
from benchmarks.service import Gateway
from benchmarks.targets import BenchError, Service
from immich_triton.export.network_places import places
from immich_triton.server import graphics_cards

Row = tuple[str, str]
Answers = Sequence[Mapping[str, Any]]

WARMING: Final = 4
"""Requests at a time, before the first that count."""
LONGEST: Final = 20.0
"""Seconds that a round of one request for each client may take; where that takes longer, the rate is known anyway."""
SOAKING: Final = 16
"""Clients at a time that send what is only to take memory."""


async def answers(url: str, task: str, model: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return what the service at *url* answers to *samples*, all sent at once."""
    service = Service("gateway", url, task, model=model)
    try:
        return list(await asyncio.gather(*(service.answer(sample) for sample in samples)))
    finally:
        await service.close()


class Services:
    """*gateway* and those it is compared with, asked for what *models* names of each task.

    Until the monotonic time *deadline*; *options* are those of ``scripts/lab/gpu.py``.
    """

    def __init__(
        self, gateway: Gateway, models: Mapping[str, str], options: argparse.Namespace, deadline: float
    ) -> None:
        self._gateway = gateway
        self._models = models
        self._options = options
        self._deadline = deadline

    def rows(self, samples: Mapping[str, Sequence[Sample]], reference: Mapping[str, Answers]) -> Iterator[Row]:
        """Yield a row for each figure, of one task after the other; what fails in one does not end the others."""
        for task, chosen in samples.items():
            try:
                yield from self._task(task, chosen, reference.get(task))
            except BenchError as error:
                yield f"{task}: failed", str(error)
        yield from self._memory("in use")
        if count := self._options.soak:
            sizes = odd_sizes(count, seed=2)
            for task in samples:
                asyncio.run(self._soak(task, sizes))
            yield from self._memory(f"in use after {count} images of different sizes")

    def _task(self, task: str, chosen: Sequence[Sample], reference: Answers | None) -> Iterator[Row]:
        sizes = odd_sizes(self._options.sizes, seed=1)
        first, warm = asyncio.run(self._first(task, sizes))
        yield (
            f"{task}: longest of {len(sizes)} sizes, first and again",
            f"{1000 * first:.0f} ms, {1000 * warm:.0f} ms ({first / warm:.2f}x)",
        )
        if reference is not None:
            ours = asyncio.run(answers(self._gateway.url, task, self._models[task], chosen))
            yield f"{task}: answers against the CPU's", card.compare(task, ours, reference)
        for clients in self._options.clients:
            yield from asyncio.run(self._rates(task, chosen, clients))

    def _memory(self, when: str) -> Iterator[Row]:
        for each in graphics_cards.look() if self._options.device == "gpu" else ():
            yield f"GPU {each.index}: memory {when}, MiB", f"{each.used} ({busy.card_memory()})"

    async def _soak(self, task: str, sizes: Sequence[Sample]) -> None:
        waiting = iter(sizes)
        async with self._service("gateway", self._gateway.url, task) as service:

            async def client() -> None:
                for sample in waiting:
                    if time.monotonic() < self._deadline:
                        await service.ask(sample)

            await asyncio.gather(*(client() for _ in range(SOAKING)))

    async def _first(self, task: str, sizes: Sequence[Sample]) -> tuple[float, float]:
        async with self._service("gateway", self._gateway.url, task) as service:
            return await card.first_and_warm(service, sizes)

    async def _rates(self, task: str, samples: Sequence[Sample], clients: int) -> list[Row]:
        gateway = self._gateway
        who = [("gateway", gateway.url)]
        networks = [place.name for place in places(self._options.models)]
        rows = []
        for number, text in enumerate(self._options.against, 1):
            name, _, stock = text.rpartition("=")
            who.append((name or f"stock {number}", stock))
        told = []
        for name, address in who:
            if time.monotonic() > self._deadline:
                told.append(f"{name} not measured: no time left")
                continue
            ours = address == gateway.url
            async with self._service(name, address, task) as service:
                try:
                    await service.ask(samples[0])  # it loads its models
                    began = time.monotonic()
                    await asyncio.gather(*(service.ask(sample) for sample in samples[: min(clients, WARMING)]))
                    round_takes = clients / min(clients, WARMING) * (time.monotonic() - began)
                    if not ours and round_takes > LONGEST:
                        told.append(f"{name} not measured: {clients} answers take about {round_takes:.0f} s")
                        continue
                    before = busy.look(gateway, networks) if ours else None
                    per_second, median, answered = await card.rate(service, samples, clients, self._options.each)
                except BenchError as error:
                    if ours:
                        raise
                    told.append(f"{name} failed: {str(error)[:100]}")  # it may not have the model
                    continue
            if before is not None:
                said = busy.between(before, busy.look(gateway, networks), answered)
                rows.append((f"{task}: {clients} clients, busy", said))
            told.append(f"{name} {per_second:.2f}/s, median {1000 * median:.0f} ms")
        return [(f"{task}: {clients} clients", "; ".join(told)), *rows]

    @contextlib.asynccontextmanager
    async def _service(self, name: str, url: str, task: str) -> AsyncIterator[Service]:
        service = Service(name, url, task, model=self._models[task])
        try:
            yield service
        finally:
            await service.close()
