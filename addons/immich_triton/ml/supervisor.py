"""The supervisor of an embedded Triton, as the gateway meets it: tells it what is asked for, waits for what slept.

A request holds its route awake for as long as it takes. The supervisor promises with each answer for how long it will
not put the route to sleep, so that most requests need not wait for one. Whatever goes wrong here, the request goes on
to Triton, which has the last word: a model that is not there is a fault then, and is waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immich_triton.core.model_states import RESTING, States, ask_soon
from immich_triton.core.request_id import detached
from immich_triton.triton.inference import Unavailable
from immich_triton.triton.transport import NOT_READY

logger = logging.getLogger(__name__)

TELL_AGAIN: Final = 1.0
"""Seconds after which another request is worth telling."""

HOLD: Final = 5.0
"""Seconds from one word to the next about a route that has requests in flight: a sleeping one is asked for again."""

WAKE_POLL: Final = 0.05
"""Seconds between two questions whether a model is awake."""


@dataclass(frozen=True)
class _Promise:
    """What the supervisor said of a route: good until *until*, which lies well before it may put it to sleep."""

    states: States
    given: float
    until: float

    def covers(self, models: Iterable[str], now: float) -> bool:
        return now < self.until and not _resting(self.states, models)


class Supervisor:
    """At *path*; there is none without. *woke* hears of models that were loaded again."""

    def __init__(self, path: Path | None, woke: Callable[[list[str]], None] = lambda _models: None) -> None:
        self._path = path
        self._woke = woke
        self._promises: dict[str, _Promise] = {}
        self._in_flight: Counter[str] = Counter()
        self._holding: asyncio.Task[None] | None = None
        self._waking: dict[tuple[str, tuple[str, ...]], asyncio.Task[None]] = {}
        self._resting: frozenset[str] = frozenset()
        self._silent = False

    @asynccontextmanager
    async def in_use(self, route: str, models: tuple[str, ...], within: float) -> AsyncIterator[None]:
        """Hold *route* awake while the block lasts; it begins when *models* are awake.

        Raises `Unavailable` when they are not within so many seconds.
        """
        if self._path is None:
            yield
            return
        self._in_flight[route] += 1
        if self._holding is None or self._holding.done():
            self._holding = detached(self._hold(), "hold routes awake")
        try:
            await self._awake(route, models, within)
            yield
        finally:
            self._in_flight[route] -= 1

    async def states(self) -> States:
        """Return how the models are; nothing is known without a supervisor, or when it does not answer."""
        return await self._ask() or States()

    async def explain(self, unready: dict[str, str]) -> dict[str, str]:
        """Return what of *unready* is a fault: a model that sleeps is none, and one that wakes is not yet."""
        if self._path is None or NOT_READY not in unready.values():
            return unready
        before = self._resting
        states = await self.states()
        # Also what woke since Triton was asked, a moment before the supervisor.
        excused = self._resting | before
        return {
            model: f"could not be loaded again: {states.reasons[model]}"
            if reason == NOT_READY and model in states.reasons
            else reason
            for model, reason in unready.items()
            if reason != NOT_READY or model not in excused
        }

    def close(self) -> None:
        """Stop what runs in the background; no request may be waiting."""
        for task in [self._holding, *self._waking.values()]:
            if task is not None:
                task.cancel()

    async def _awake(self, route: str, models: tuple[str, ...], within: float) -> None:
        now, promise = time.monotonic(), self._promises.get(route)
        if promise is not None and promise.covers(models, now):
            if now > promise.given + TELL_AGAIN:
                # Not a second one, before the first was answered.
                self._promises[route] = _Promise(promise.states, now, promise.until)
                detached(self._tell(route), f"tell that {route} is asked for")
            return
        states = await self._ask(route)
        # Of one that does not answer in time what it said last is believed: what slept is not there.
        if not (_resting(states, models) if states else self._resting.intersection(models)):
            return
        key = route, models
        if key not in self._waking or self._waking[key].done():
            logger.info("%s slept; waiting until it is loaded again", route)
            self._waking[key] = detached(self._wake(route, models), f"wake {route}")
        done, _ = await asyncio.wait({self._waking[key]}, timeout=within)
        if not done:
            raise Unavailable(f"{route} slept, and its models were not loaded again within {within:.3g} s")

    async def _wake(self, route: str, models: tuple[str, ...]) -> None:
        """Wait until the supervisor says no more that *models* sleep or wake, or nobody waits."""
        while self._in_flight[route]:
            await asyncio.sleep(WAKE_POLL)
            states = await self._ask(route)
            # Without an answer it goes on: what slept a moment ago is not there.
            if states is not None and not _resting(states, models):
                return

    async def _hold(self) -> None:
        while routes := [route for route, count in self._in_flight.items() if count]:
            pause = HOLD
            for route in routes:
                if (states := await self._ask(route)) is not None:
                    pause = min(pause, states.awake_seconds / 4)
            await asyncio.sleep(pause)

    async def _tell(self, route: str) -> None:
        await self._ask(route)

    async def _ask(self, route: str = "") -> States | None:
        if self._path is None:
            return None
        asked = time.monotonic()
        try:
            states = await ask_soon(self._path, route)
        except (OSError, ValueError) as error:
            if not self._silent:
                logger.warning("the supervisor at %s does not answer: %s", self._path, error or type(error).__name__)
            self._silent = True
            self._promises.pop(route, None)
            return None
        self._silent = False
        resting = frozenset(model for model, state in states.models.items() if state in RESTING)
        if woke := sorted(self._resting - resting):
            self._woke(woke)
        self._resting = resting
        if route:
            self._promises[route] = _Promise(states, asked, asked + states.awake_seconds / 2)
        return states


def _resting(states: States, models: Iterable[str]) -> bool:
    return any(states.models.get(model) in RESTING for model in models)
