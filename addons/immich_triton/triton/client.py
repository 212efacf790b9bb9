"""Async client of Triton: one retry loop within the request's deadline, behind a breaker and a queue per pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from immich_triton.core.observer import Observer, Timing
from immich_triton.core.request_id import detached
from immich_triton.triton.admission import Priority, Ticket
from immich_triton.triton.attempts import SERVER, Attempts, Generations
from immich_triton.triton.breaker import Breaker
from immich_triton.triton.inference import (
    BadInput,
    Call,
    Poison,
    Refused,
    ServerFault,
    TritonError,
    Unavailable,
    WrongWeights,
)
from immich_triton.triton.line import PROBE_TIMEOUT, Line
from immich_triton.triton.picture import picture_of
from immich_triton.triton.transport import NOT_READY, UNREACHABLE, Array, Transport

if TYPE_CHECKING:
    from immich_triton.triton.pipelines import Pipeline

__all__ = [
    "BadInput",
    "Call",
    "Poison",
    "Refused",
    "ServerFault",
    "TritonClient",
    "TritonError",
    "Unavailable",
    "WrongWeights",
]


Explain = Callable[[dict[str, str]], Awaitable[dict[str, str]]]
"""Takes what Triton calls not ready, with the reason, and returns what of it is a fault, perhaps with a better one."""


async def _as_it_is(unready: dict[str, str]) -> dict[str, str]:
    return unready


class TritonClient:
    """Calls pipelines at *url*.

    *timeout*, in seconds, is how long one call may be worked on before Triton is asked whether its models are still
    ready. *key* is sent with every request. *max_at_triton* bounds the calls of a pipeline that are at Triton at the
    same time; 0 takes the bound from the pipeline's config. *explain* knows which models are not loaded on purpose.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        key: str = "",
        max_at_triton: int = 0,
        observer: Observer | None = None,
        explain: Explain = _as_it_is,
    ) -> None:
        self.url = url
        self._explain = explain
        self._transport = Transport(url, key=key)
        self._timeout = timeout
        self._max_at_triton = max_at_triton
        self._observer = observer or Observer()
        self._breakers: dict[str, Breaker] = {}
        self._lines: dict[str, Line] = {}
        self._generations = Generations()

    async def close(self) -> None:
        """Stop the probes and close the connections."""
        for breaker in self._breakers.values():
            breaker.close()
        for line in self._lines.values():
            line.close()
        await self._transport.close()

    def breaker(self, pipeline: Pipeline) -> Breaker:
        """Return the breaker of a pipeline (by what must be ready for it: two encoders have two)."""
        key = " ".join(pipeline.all_models)
        if key not in self._breakers:
            self._breakers[key] = Breaker(
                pipeline,
                lambda: self._probe(pipeline.all_models),
                self._observer,
                lambda: self._line(pipeline).learn(),
            )
        return self._breakers[key]

    async def infer(
        self,
        call: Call,
        deadline: float,
        *,
        priority: Priority = Priority.IMAGE,
        patient: bool = True,
        timing: Timing | None = None,
    ) -> dict[str, Array]:
        """Run *call* and return its outputs by name.

        Waits for Triton and tries again after a fault of the server, until *deadline* seconds are over; not *patient*,
        it gives up as soon as the breaker opens. *timing* takes the time spent. Raises `BadInput`, `Unavailable`,
        `Refused`, `WrongWeights` or `ServerFault`.
        """
        breaker, line = self.breaker(call.pipeline), self._line(call.pipeline)
        timing, ticket, attempts = (
            timing or Timing(),
            Ticket(priority, large=is_large(call)),
            Attempts(self._generations),
        )
        at_triton = False
        try:
            async with asyncio.timeout(deadline):
                while True:
                    at_triton = False
                    async with line.place(
                        breaker, ticket, timing, patient=patient, suspect=attempts.suspect
                    ) as passage:
                        at_triton = True
                        attempts.sending()
                        try:
                            answer = await line.send(call, ticket, timing)
                        except ServerFault as fault:
                            self._take_note(fault)
                            breaker.open(str(fault), passage, stuck=fault.kind == "process")
                            end = attempts.failed(fault)
                            self._observer.call_failed(call.pipeline.name, fault.kind, again=end is None)
                            if end is fault:
                                raise
                            if end is not None:
                                raise end from fault
                        else:
                            breaker.succeeded(passage)
                            return answer
        except TimeoutError:
            if at_triton:
                reason = f"no answer to a call that had {deadline:.3g} s in all"
                detached(self._doubt(breaker, call.pipeline, reason), f"doubt {call.pipeline.name}")
            why = "" if breaker.is_closed else f": {breaker.reason}"
            raise Unavailable(
                f"{call.pipeline.name} gave no answer within {deadline:.3g} s from Triton at {self.url}{why}"
            ) from None

    async def _doubt(self, breaker: Breaker, pipeline: Pipeline, reason: str) -> None:
        """Open the breaker when a pipeline that gave no answer in time is not ready any more; a busy one goes on."""
        if await self._probe(pipeline.all_models):
            breaker.open(reason)

    def _line(self, pipeline: Pipeline) -> Line:
        if pipeline.name not in self._lines:
            self._lines[pipeline.name] = Line(
                pipeline.name, self._transport, self._probe, self._timeout, self._max_at_triton, self._observer
            )
        return self._lines[pipeline.name]

    def _take_note(self, fault: ServerFault) -> None:
        """Remember who is away: whatever comes back is not what it was."""
        if fault.kind == "unreachable":
            self._generations.missed(SERVER)
        elif fault.kind == "unloaded" or fault.renewed:
            self._generations.missed(fault.model)

    async def _probe(self, models: Iterable[str]) -> dict[str, str]:
        """Return what is not ready among *models*, and remember who was away."""
        models = list(models)
        unready = await self.not_loaded(models, within=PROBE_TIMEOUT)
        if unready and not await self.is_live(within=PROBE_TIMEOUT):
            if any(reason.startswith(UNREACHABLE) for reason in unready.values()):
                self._generations.missed(SERVER)
            for line in self._lines.values():
                line.forget()
        elif SERVER not in unready:
            # Only what Triton says of a model tells that it is away: on a busy machine an answer may just be late.
            for model in (model for model, reason in unready.items() if reason == NOT_READY):
                self._generations.missed(model)
            self._generations.seen([model for model in models if model not in unready])
        return await self._explain(unready) if unready else unready

    def renewed(self, models: Iterable[str]) -> None:
        """Take note that *models* were loaded again, on purpose: their processes are new."""
        models = list(models)
        for model in models:
            self._generations.missed(model)
        self._generations.seen(models)

    def waiting(self, pipelines: Iterable[Pipeline]) -> dict[str, str]:
        """Return the pipelines whose breaker is not closed, with the reason."""
        # Two encoders share a pipeline and have two breakers: one that is well must not hide the other.
        breakers = [(pipeline.name, self.breaker(pipeline)) for pipeline in pipelines]
        return {name: breaker.reason for name, breaker in breakers if not breaker.is_closed}

    async def is_live(self, *, within: float) -> bool:
        """Return whether Triton answers at all; takes at most *within* seconds."""
        return await self._transport.is_live(within)

    async def not_ready(self, models: Iterable[str], *, within: float) -> dict[str, str]:
        """Return what is not ready among *models* and should be, with the reason; Triton has *within* seconds."""
        unready = await self.not_loaded(models, within=within)
        return await self._explain(unready) if unready else unready

    async def not_loaded(self, models: Iterable[str], *, within: float) -> dict[str, str]:
        """Return what Triton calls not ready among *models*, with the reason; takes at most *within* seconds."""
        names = list(dict.fromkeys(models))
        if not names:  # nothing is routed: nobody needs Triton
            return {}
        refused, *reasons = await asyncio.gather(
            self._transport.why_refused(within), *(self._transport.why_not_ready(name, within) for name in names)
        )
        unready = {name: reason for name, reason in zip(names, reasons, strict=True) if reason}
        # Where Triton is away every question got the same answer: once is enough.
        return {SERVER: refused, **unready} if refused and refused not in unready.values() else unready


def is_large(call: Call) -> bool:
    """Return whether a call may take so long that it must leave processes to others: by the size of its image."""
    return call.tensor == "IMAGE" and picture_of(call.payload).large
