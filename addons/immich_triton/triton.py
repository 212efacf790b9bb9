"""Async client of Triton: one retry loop, bounded by the request's deadline, behind a gate and a queue per pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.admission import Places, Priority, Ticket
from immich_triton.gate import Gate
from immich_triton.inference import BadInput, Call, Refused, ServerFault, TritonError, Unavailable
from immich_triton.observer import Clock, Observer
from immich_triton.picture import picture_of
from immich_triton.transport import Array, Transport

if TYPE_CHECKING:
    from immich_triton.routes import Pipeline

__all__ = ["BadInput", "Call", "Refused", "ServerFault", "TritonClient", "TritonError", "Unavailable"]

ATTEMPTS: Final = 3
"""How often one request is sent at most. A request that makes the server fail each time must not do so for ever."""

PROBE_TIMEOUT: Final = 5.0

PLACES_UNTIL_KNOWN: Final = 4
PLACES_BEYOND: Final = 2
"""Calls at Triton: this many until the pipeline's config was read, then this many more than it can work on."""


class TritonClient:
    """Calls pipelines at *url*.

    *timeout* bounds one call, in seconds. *key* is sent with every request. *max_at_triton* bounds the calls of a
    pipeline that are at Triton at the same time; 0 takes the bound from the pipeline's config.
    """

    def __init__(
        self, url: str, *, timeout: float, key: str = "", max_at_triton: int = 0, observer: Observer | None = None
    ) -> None:
        self.url = url
        self._transport = Transport(url, timeout=timeout, key=key)
        self._max_at_triton = max_at_triton
        self._observer = observer or Observer()
        self._gates: dict[str, Gate] = {}
        self._lines: dict[str, _Line] = {}

    async def close(self) -> None:
        """Stop the probes and close the connections."""
        for gate in self._gates.values():
            gate.close()
        for line in self._lines.values():
            line.close()
        await self._transport.close()

    def gate(self, pipeline: Pipeline) -> Gate:
        """Return the gate of a pipeline (by what must be ready for it: two encoders have two gates)."""
        key = " ".join(pipeline.all_models)
        if key not in self._gates:
            self._gates[key] = Gate(
                pipeline, lambda: self.not_ready(pipeline.all_models, within=PROBE_TIMEOUT), self._observer
            )
        return self._gates[key]

    async def infer(
        self,
        call: Call,
        deadline: float,
        *,
        priority: Priority = Priority.IMAGE,
        patient: bool = True,
        clock: Clock | None = None,
    ) -> dict[str, Array]:
        """Run *call* and return its outputs by name.

        Waits for Triton and tries again after a fault of the server, until *deadline* seconds are over; not *patient*,
        it gives up as soon as the gate is closed. *clock* takes the time spent. Raises `BadInput`, `Unavailable`,
        `Refused` or `ServerFault`.
        """
        gate, line = self.gate(call.pipeline), self._line(call.pipeline)
        clock, ticket = clock or Clock(), Ticket(priority, large=is_large(call))
        sent, at_triton = 0, False
        try:
            async with asyncio.timeout(deadline):
                while True:
                    at_triton = False
                    await line.take(gate, ticket, clock, patient=patient)
                    at_triton = True
                    try:
                        return await line.send(call, ticket, clock)
                    except ServerFault as fault:
                        gate.shut(str(fault))
                        sent += fault.sent
                        self._observer.call_failed(call.pipeline.name, fault.kind, again=sent < ATTEMPTS)
                        if sent >= ATTEMPTS:
                            raise fault if fault.answered else Unavailable(str(fault)) from fault
        except TimeoutError:
            if at_triton:
                gate.shut(
                    f"no answer to a call that had {deadline:.3g} s in all"
                )  # it may hang: ask whether it is ready
            why = "" if gate.is_open else f": {gate.reason}"
            raise Unavailable(
                f"{call.pipeline.name} gave no answer within {deadline:.3g} s from Triton at {self.url}{why}"
            ) from None

    def _line(self, pipeline: Pipeline) -> _Line:
        if pipeline.name not in self._lines:
            line = _Line(pipeline.name, self._transport, self._max_at_triton, self._observer)
            self._lines[pipeline.name] = line
        return self._lines[pipeline.name]

    async def is_live(self, *, within: float) -> bool:
        """Return whether Triton answers at all; takes at most *within* seconds."""
        return await self._transport.is_live(within)

    async def not_ready(self, models: Iterable[str], *, within: float) -> dict[str, str]:
        """Return what is not ready among *models*, with the reason; takes at most *within* seconds."""
        names = list(dict.fromkeys(models))
        refused, *reasons = await asyncio.gather(
            self._transport.why_refused(within), *(self._transport.why_not_ready(name, within) for name in names)
        )
        unready = {name: reason for name, reason in zip(names, reasons, strict=True) if reason}
        return {"Triton": refused, **unready} if refused else unready


def is_large(call: Call) -> bool:
    """Whether a call may take so long that it must leave processes to others: by the size of its image."""
    return call.tensor == "IMAGE" and picture_of(call.payload).large


class _Line:
    """The requests of one pipeline on their way to Triton."""

    def __init__(self, name: str, transport: Transport, places: int, observer: Observer) -> None:
        self._name = name
        self._transport = transport
        self._observer = observer
        self._waiting = 0
        self._places = Places(places or PLACES_UNTIL_KNOWN, lambda _, taken: observer.at_triton(name, taken))
        self._fixed = places
        self._known = False
        self._learning: asyncio.Task[None] | None = None
        self._learn()

    async def take(self, gate: Gate, ticket: Ticket, clock: Clock, *, patient: bool) -> None:
        """Wait until the gate is open and a place is free, and take the place.

        Raises `Unavailable` when the gate is closed, or closes meanwhile, and the caller is not *patient*.
        """
        since = time.monotonic()
        self._count(1)
        try:
            while True:
                if not patient and not gate.is_open:
                    raise Unavailable(f"{self._name} waits for Triton: {gate.reason}")
                await gate.passed()
                await self._places.take(ticket)
                if gate.is_open:
                    return
                self._places.free(ticket)
        finally:
            self._count(-1)
            clock.waited += time.monotonic() - since

    async def send(self, call: Call, ticket: Ticket, clock: Clock) -> dict[str, Array]:
        """Send *call*; the place of *ticket* is given back when Triton is done, even when nobody waits any more."""
        since = time.monotonic()
        exchange: asyncio.Task[dict[str, Array]] = create_task(
            self._transport.infer(call), name=f"call {self._name}", keep_ref=True
        )
        exchange.add_done_callback(lambda exchange: self._done(exchange, ticket))
        try:
            return await asyncio.shield(exchange)
        finally:
            clock.at_triton += time.monotonic() - since

    def close(self) -> None:
        """Stop what runs in the background."""
        if self._learning:
            self._learning.cancel()

    def _done(self, exchange: asyncio.Task[dict[str, Array]], ticket: Ticket) -> None:
        self._places.free(ticket)
        if not exchange.cancelled() and exchange.exception() is None:
            self._learn()

    def _count(self, change: int) -> None:
        self._waiting += change
        self._observer.waiting(self._name, self._waiting)

    def _learn(self) -> None:
        """Read from the pipeline's config how much it can work on, unless that is known."""
        if not self._known and (self._learning is None or self._learning.done()):
            self._learning = create_task(self._read_capacity(), name=f"read the config of {self._name}", keep_ref=True)

    async def _read_capacity(self) -> None:
        capacity = await self._transport.capacity(self._name, within=PROBE_TIMEOUT)
        if capacity:
            self._known = True
            self._places.resize(self._fixed or capacity.calls + PLACES_BEYOND, large=capacity.large)
