"""The requests of one pipeline on their way to Triton: a place at Triton for each, and the call itself."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core.request_id import detached
from immich_triton.triton.admission import Places, Ticket
from immich_triton.triton.inference import Call, ServerFault, Unavailable

if TYPE_CHECKING:
    from immich_triton.core.observer import Observer, Timing
    from immich_triton.triton.breaker import Breaker, Passage
    from immich_triton.triton.transport import Array, Transport

PROBE_TIMEOUT: Final = 5.0
"""Seconds Triton has to say whether a model is ready, or how many calls it can work on."""

PLACES_UNTIL_KNOWN: Final = 4
PLACES_BEYOND: Final = 2
"""Calls at Triton: this many until the pipeline's config was read, then this many more than it can work on."""

LEARN_AGAIN: Final = 60.0
"""Seconds after which the config is read again: a model may be loaded with another one at any time."""

ABANDONED: Final = 300.0
"""Seconds after which Triton is not expected to end a call any more that nobody waits for."""

NotReady = Callable[[Iterable[str]], Awaitable[dict[str, str]]]
"""Returns which of some models are not ready, with the reason."""


class Line:
    """One pipeline's; *timeout* is how long a call may be worked on before Triton is asked about it, in seconds.

    *places* bounds the calls at Triton; 0 takes the bound from the pipeline's config.
    """

    def __init__(
        self, name: str, transport: Transport, not_ready: NotReady, timeout: float, places: int, observer: Observer
    ) -> None:
        self._name = name
        self._transport = transport
        self._not_ready = not_ready
        self._timeout = timeout
        self._observer = observer
        self._waiting = 0
        self._fixed = places
        self._capacity = places or PLACES_UNTIL_KNOWN
        self._places = Places(self._capacity, lambda _, taken: observer.at_triton(name, taken))
        self._abandoned: set[asyncio.Task[dict[str, Array]]] = set()
        self._learning: asyncio.Task[None] | None = None
        self._learned = -math.inf
        self.learn()

    @contextlib.asynccontextmanager
    async def place(
        self, breaker: Breaker, ticket: Ticket, timing: Timing, *, patient: bool, suspect: bool
    ) -> AsyncIterator[Passage]:
        """Wait until the breaker lets pass and a place is free; inside the block one call may be sent.

        Of the *suspect* requests one at a time. Raises `Unavailable` when the caller is not *patient* and the breaker
        is open, or opens meanwhile, or the request is suspect.
        """
        async with contextlib.AsyncExitStack() as stack:
            with self._waits(timing):
                if suspect and not patient:
                    raise Unavailable(f"{self._name} waits for Triton: {breaker.reason or 'a process died'}")
                if suspect:
                    await stack.enter_async_context(breaker.suspects)
                passage = await self._take(breaker, ticket, patient=patient)
            stack.callback(breaker.leave, passage)
            yield passage

    @contextlib.contextmanager
    def _waits(self, timing: Timing) -> Iterator[None]:
        since = time.monotonic()
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)
            timing.waited += time.monotonic() - since

    async def _take(self, breaker: Breaker, ticket: Ticket, *, patient: bool) -> Passage:
        while True:
            if not patient and not breaker.passable:
                raise Unavailable(f"{self._name} waits for Triton: {breaker.reason}")
            await breaker.passed()
            if not breaker.passable:  # another one was woken before, and is on trial
                continue
            await self._places.take(ticket)
            if passage := breaker.enter():
                return passage
            self._places.free(ticket)

    async def send(self, call: Call, ticket: Ticket, timing: Timing) -> dict[str, Array]:
        """Send *call*; its place is given back when Triton is done with it, even when nobody waits any more.

        A call that takes long is waited for as long as its models report ready: Triton works on it, or will, and sent
        again it would be worked on twice.
        """
        since = time.monotonic()
        exchange: asyncio.Task[dict[str, Array]] = create_task(
            self._transport.infer(call), name=f"call {self._name}", keep_ref=True
        )
        exchange.add_done_callback(lambda exchange: self._done(exchange, ticket))
        try:
            while not exchange.done():
                patience = self._patience()
                await asyncio.wait({exchange}, timeout=patience)
                if exchange.done():
                    break
                # Twice: a busy Triton may be late once, and a call that is given up is worked on all the same.
                unready = await self._not_ready(call.pipeline.all_models)
                if unready and not exchange.done():
                    unready = await self._not_ready(call.pipeline.all_models)
                if unready and not exchange.done():
                    exchange.cancel()
                    why = "; ".join(f"{model}: {reason}" for model, reason in unready.items())
                    raise ServerFault(f"{self._name} gave no answer to one call ({why})", kind="timeout")
            return exchange.result()
        finally:
            timing.at_triton += time.monotonic() - since
            if not exchange.done():
                self._abandoned.add(exchange)
                ends = asyncio.get_running_loop().call_later(ABANDONED, exchange.cancel)
                exchange.add_done_callback(lambda _: ends.cancel())

    def _patience(self) -> float:
        """Return how long the call that is sent last may take: it waits in Triton's queue behind those before it."""
        return self._timeout * max(1, math.ceil(self._places.taken / self._capacity))

    def forget(self) -> None:
        """Give back the places of calls that nobody waits for: Triton is away, and will not end them."""
        for exchange in list(self._abandoned):
            exchange.cancel()

    def close(self) -> None:
        """Stop what runs in the background."""
        if self._learning:
            self._learning.cancel()

    def _done(self, exchange: asyncio.Task[dict[str, Array]], ticket: Ticket) -> None:
        self._places.free(ticket)
        self._abandoned.discard(exchange)
        if not exchange.cancelled() and exchange.exception() is None and time.monotonic() > self._learned + LEARN_AGAIN:
            self.learn()

    def _count(self, change: int) -> None:
        self._waiting += change
        self._observer.waiting(self._name, self._waiting)

    def learn(self) -> None:
        """Read from the pipeline's config how many calls it can work on (unless the user said it), and large images."""
        if self._learning is None or self._learning.done():
            self._learning = detached(self._read_capacity(), f"read the config of {self._name}")

    async def _read_capacity(self) -> None:
        if capacity := await self._transport.capacity(self._name, within=PROBE_TIMEOUT):
            self._learned = time.monotonic()
            self._capacity = self._fixed or capacity.calls
            self._places.resize(self._fixed or capacity.calls + PLACES_BEYOND, large=capacity.large)
