"""The way of one pipeline's requests to Triton: a place for each, and the call. With the client: test_client.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import cast, override

import numpy as np
import pytest

from immich_triton.core.observer import Observer, Timing
from immich_triton.triton.admission import Priority, Ticket
from immich_triton.triton.breaker import Breaker
from immich_triton.triton.inference import Call, ServerFault, Unavailable
from immich_triton.triton.line import PLACES_BEYOND, PLACES_UNTIL_KNOWN, Line
from immich_triton.triton.pipelines import Pipeline
from immich_triton.triton.transport import Array, Capacity, Transport

PIPELINE = Pipeline("ocr", ("detection",), ("ocr_det",))
CALL = Call(PIPELINE, "IMAGE", b"image", ("TEXTS",))
ANSWER: dict[str, Array] = {"TEXTS": np.zeros(1)}


class Server:
    """Stands where the connections to Triton are, and answers when a test lets it."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.capacity_known: Capacity | None = None
        self.calls = 0
        self.cancelled = 0

    async def infer(self, _call: Call) -> dict[str, Array]:
        self.calls += 1
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ANSWER

    async def capacity(self, _model: str, within: float) -> Capacity | None:
        return self.capacity_known


class Site(Observer):
    """A line, its breaker, and how many wait and are at Triton."""

    def __init__(self, places: int, timeout: float = 60) -> None:
        self.server = Server()
        self.unready: dict[str, str] = {}
        self.counts = {"waiting": 0, "at_triton": 0}
        self.breaker = Breaker(PIPELINE, self._probe, self)
        self.line = Line("ocr", cast("Transport", self.server), self._not_ready, timeout, places, self)
        self.timing = Timing()
        self.looks = 0
        self.looked_at_twice = asyncio.Event()

    async def _probe(self) -> dict[str, str]:
        return self.unready

    async def _not_ready(self, models: Iterable[str]) -> dict[str, str]:
        assert tuple(models) == PIPELINE.all_models
        self.looks += 1
        if self.looks == 2:
            self.looked_at_twice.set()
        return self.unready

    @override
    def waiting(self, pipeline: str, count: int) -> None:
        self.counts["waiting"] = count

    @override
    def at_triton(self, pipeline: str, count: int) -> None:
        self.counts["at_triton"] = count

    async def ask(self, *, patient: bool = True, suspect: bool = False) -> dict[str, Array]:
        ticket = Ticket(Priority.IMAGE)
        async with self.line.place(self.breaker, ticket, self.timing, patient=patient, suspect=suspect):
            return await self.line.send(CALL, ticket, self.timing)


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site(places=1)
    yield site
    site.breaker.close()
    site.line.close()
    await settle()


async def test_a_call_has_a_place_while_triton_works_on_it(site: Site) -> None:
    asked = [asyncio.create_task(site.ask()) for _ in range(2)]
    await settle()
    assert (site.server.calls, site.counts) == (1, {"waiting": 1, "at_triton": 1})
    site.server.answer.set()
    assert await asyncio.gather(*asked) == [ANSWER, ANSWER]
    assert site.counts == {"waiting": 0, "at_triton": 0}
    assert site.timing.waited > 0
    assert site.timing.at_triton > 0


async def test_a_call_that_nobody_waits_for_keeps_its_place_until_triton_is_away(site: Site) -> None:
    asked = asyncio.create_task(site.ask())
    await settle()
    asked.cancel()
    await asyncio.wait({asked})
    assert (site.server.cancelled, site.counts["at_triton"]) == (0, 1)
    site.line.forget()
    await settle()
    assert (site.server.cancelled, site.counts["at_triton"]) == (1, 0)


async def test_who_has_no_patience_does_not_wait_for_the_breaker(site: Site) -> None:
    site.unready = {"ocr": "away"}
    site.breaker.open("ocr is away")
    with pytest.raises(Unavailable, match="ocr waits for Triton: ocr is away"):
        await site.ask(patient=False)
    assert (site.server.calls, site.counts["waiting"]) == (0, 0)


async def test_a_suspect_without_patience_goes_nowhere(site: Site) -> None:
    with pytest.raises(Unavailable, match="a process died"):
        await site.ask(patient=False, suspect=True)


async def test_suspects_go_one_after_the_other() -> None:
    site = Site(places=4)
    asked = [asyncio.create_task(site.ask(suspect=True)) for _ in range(3)]
    innocent = asyncio.create_task(site.ask())
    await settle()
    assert site.server.calls == 2
    site.server.answer.set()
    await asyncio.gather(*asked, innocent)
    assert site.server.calls == 4


async def test_a_call_that_takes_long_is_waited_for_while_its_models_are_ready() -> None:
    site = Site(places=1, timeout=0.001)
    asked = asyncio.create_task(site.ask())
    await site.looked_at_twice.wait()
    assert not asked.done()
    site.unready = {"ocr_det": "not ready in Triton"}
    with pytest.raises(ServerFault, match=r"ocr gave no answer to one call \(ocr_det: not ready in Triton\)") as caught:
        await asked
    assert caught.value.kind == "timeout"
    await settle()
    assert site.counts["at_triton"] == 0


async def test_the_number_of_places_is_learned_unless_it_was_said() -> None:
    for said, expected in ((0, 2 * 3 + PLACES_BEYOND), (5, 5)):
        site = Site(places=said)
        await settle()
        asked = [asyncio.create_task(site.ask()) for _ in range(20)]
        await settle()
        assert site.counts["at_triton"] == (said or PLACES_UNTIL_KNOWN), "the config cannot be read yet"
        site.server.capacity_known = Capacity(processes=2, batch=3)
        site.line.learn()
        await settle()
        assert site.counts["at_triton"] == expected
        site.server.answer.set()
        await asyncio.gather(*asked)
