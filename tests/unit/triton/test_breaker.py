"""One breaker: when it lets requests pass, and what it tells about it. The client's use of it: test_client.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import override

import pytest

from immich_triton.core.observer import Observer
from immich_triton.triton import breaker as breaker_module
from immich_triton.triton.breaker import Breaker, Passage
from immich_triton.triton.pipelines import Pipeline

STEP = 0.001


class Site(Observer):
    """A breaker with a Triton that reports what a test says."""

    def __init__(self) -> None:
        self.unready: dict[str, str] = {}
        self.probed = asyncio.Event()
        self.changes: list[tuple[bool, str]] = []
        self.reopened = 0
        self.breaker = Breaker(Pipeline("ocr", ("detection",), ("ocr_det",)), self._probe, self, self._count)

    async def _probe(self) -> dict[str, str]:
        self.probed.set()
        return dict(self.unready)

    def _count(self) -> None:
        self.reopened += 1

    @override
    def breaker_changed(self, pipeline: str, *, is_closed: bool, reason: str) -> None:
        assert pipeline == "ocr"
        self.changes.append((is_closed, reason))

    async def next_probe(self) -> None:
        """Wait until Triton was asked and the answer was looked at."""
        self.probed.clear()
        await self.probed.wait()
        await asyncio.sleep(0)

    async def is_in(self, state: breaker_module.State) -> None:
        async with asyncio.timeout(60):
            while self.breaker.state != state:
                await self.next_probe()

    def enter(self) -> Passage:
        passage = self.breaker.enter()
        assert passage is not None
        return passage


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    for name in ("PROBE_FIRST", "PROBE_LAST", "PROBE_STUCK", "TRIAL_FIRST", "TRIAL_LAST"):
        monkeypatch.setattr(breaker_module, name, STEP)
    site = Site()
    site.breaker._pause = STEP
    yield site
    site.breaker.close()
    await asyncio.sleep(0)


async def test_closed_it_lets_everybody_pass(site: Site) -> None:
    assert site.breaker.is_closed
    passages = [site.enter() for _ in range(3)]
    assert not any(passage.trial for passage in passages)
    for passage in passages:
        site.breaker.succeeded(passage)
        site.breaker.leave(passage)
    await asyncio.wait_for(site.breaker.passed(), 60)
    assert (site.breaker.state, site.changes) == ("closed", [])


async def test_open_it_waits_until_triton_says_that_all_is_well(site: Site) -> None:
    site.unready = {"ocr_det": "not ready in Triton"}
    site.breaker.open("ocr_det is not loaded")
    assert (site.breaker.enter(), site.breaker.passable) == (None, False)
    await site.next_probe()
    assert site.breaker.reason == "ocr_det: not ready in Triton"
    waiting = asyncio.create_task(site.breaker.passed())
    site.unready = {}
    async with asyncio.timeout(60):
        await waiting
    assert (site.breaker.state, site.breaker.reason, site.reopened) == ("closed", "", 1)
    assert site.changes == [(False, "ocr_det is not loaded"), (True, "")]


async def test_it_is_open_once_however_many_calls_fail(site: Site) -> None:
    site.unready = {"ocr": "away"}
    for number in range(3):
        site.breaker.open(f"failed {number}")
    assert site.breaker.reason == "failed 2"
    assert site.changes == [(False, "failed 0")]


async def test_a_model_that_hangs_and_reports_ready_is_tried_by_one_request_at_a_time(site: Site) -> None:
    failed = site.enter()
    site.breaker.open("a process died", failed, stuck=True)
    await site.is_in("half_open")
    trial = site.enter()
    assert trial.trial
    assert site.breaker.enter() is None
    site.breaker.leave(failed)
    assert site.breaker.enter() is None, "the end of another call decides nothing"
    site.breaker.succeeded(failed)
    assert site.changes == [(False, "a process died")]
    site.breaker.succeeded(trial)
    site.breaker.leave(trial)
    assert site.breaker.is_closed
    assert site.breaker.passable
    assert site.changes == [(False, "a process died"), (True, "")]


async def test_a_trial_that_ends_without_an_answer_leaves_its_turn_to_the_next(site: Site) -> None:
    site.breaker.open("a process died", stuck=True)
    await site.is_in("half_open")
    site.breaker.leave(site.enter())
    assert site.breaker.state == "half_open"
    assert site.enter().trial


async def test_a_trial_that_fails_opens_it_again_and_another_follows(site: Site) -> None:
    site.breaker.open("a process died", stuck=True)
    await site.is_in("half_open")
    trial = site.enter()
    site.breaker.open("it died again", trial, stuck=True)
    site.breaker.leave(trial)
    assert (site.breaker.state, site.breaker.enter()) == ("open", None)
    await site.is_in("half_open")
    site.breaker.succeeded(site.enter())
    assert site.breaker.is_closed


async def test_a_call_that_failed_late_does_not_take_the_trial_away(site: Site) -> None:
    late = site.enter()
    site.breaker.open("a process died", stuck=True)
    await site.is_in("half_open")
    site.breaker.open("it died", late, stuck=True)
    assert site.breaker.state == "half_open"
    assert site.enter().trial


async def test_what_nobody_tries_is_trusted_in_the_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.breaker.open("a process died", stuck=True)
    await site.is_in("half_open")
    await site.next_probe()
    assert site.breaker.state == "half_open"
    monkeypatch.setattr(breaker_module, "TRUST", 0)
    await site.is_in("closed")


async def test_a_model_that_was_away_meanwhile_is_tried_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker_module, "TRIAL_FIRST", 3600.0)
    site.breaker.open("a process died", stuck=True)
    await site.next_probe()
    assert site.breaker.state == "open"
    site.unready = {"ocr": "not ready in Triton"}
    await site.next_probe()
    site.unready = {}
    await site.is_in("half_open")


async def test_closed_for_good_it_asks_no_more(site: Site) -> None:
    site.unready = {"ocr": "away"}
    site.breaker.open("away")
    await site.next_probe()
    site.breaker.close()
    watching = site.breaker._watching
    assert watching
    await asyncio.wait({watching})
    assert watching.cancelled()
