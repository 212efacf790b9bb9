"""How often one request is sent, and when it is given up: it may have met a fault of the server, or be the fault.

A request may take a model's process down: an image that no library survives. Sent again and again it would take the
model away from everybody, so it is given up when the same model has lost a process over it twice. A request that only
was in the same batch is not to suffer: it becomes a suspect too, but suspects are sent one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from immich_triton.triton.inference import Poison, ServerFault, TritonError, Unavailable

ATTEMPTS: Final = 3
"""How often a request is sent that Triton answers with an error of its own, or with garbage, or over which the whole
server ends: others do that too, and it is no reason to call a photo poison."""

SENDS: Final = 5
"""How often a request is sent at most, whatever came of it."""

SERVER: Final = "Triton"
"""The server as a whole, beside the models."""

NOT_EXECUTED: Final = ("unreachable", "unloaded")
"""Faults that cost nobody anything: no model was asked."""

Generation = tuple[int, int]


class Generations:
    """Tells whether a model's processes are still the ones that were there before.

    Triton does not say so, but a model that was away and is ready again has new ones, and so have all when the server
    itself was away. Without that a process that is dead, or hangs, and that Triton goes on to give requests to, would
    seem to die anew with each of them.
    """

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._away: set[str] = set()
        self._died: dict[str, Generation] = {}

    def of(self, model: str) -> Generation:
        """Return what changes when the processes of *model* are replaced."""
        return self._count.get(SERVER, 0), self._count.get(model, 0) if model != SERVER else 0

    def missed(self, model: str) -> None:
        """Take note that *model* (or the server) is away."""
        self._away.add(model)

    def died(self, model: str) -> None:
        """Take note that one of the processes that *model* has now died."""
        self._died[model] = self.of(model)

    def dead(self) -> frozenset[tuple[str, Generation]]:
        """Return the models that lost a process, with the generation it was of."""
        return frozenset(self._died.items())

    def seen(self, models: Iterable[str]) -> None:
        """Take note that *models* are there, and with them the server."""
        for model in self._away.intersection((*models, SERVER)):
            self._away.discard(model)
            self._count[model] = self._count.get(model, 0) + 1


class Attempts:
    """What became of one request so far."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._deaths: dict[str, Generation] = {}
        self._crashes: set[Generation] = set()
        self._dead_before: frozenset[tuple[str, Generation]] = frozenset()
        self._sent = 0
        self._answered = 0

    @property
    def suspect(self) -> bool:
        """Whether a process died while this request was at Triton."""
        return bool(self._deaths or self._crashes)

    def sending(self) -> None:
        """Take note that the request is sent now: a process that is dead already does not die over it."""
        self._dead_before = self._generations.dead()

    def failed(self, fault: ServerFault) -> TritonError | None:
        """Count a call that failed; return the error that ends the request, or None when it may be sent again."""
        if fault.kind in NOT_EXECUTED:
            return None
        if fault.kind == "process":
            before, now = self._deaths.get(fault.model), self._generations.of(fault.model)
            self._generations.died(fault.model)
            if before == now or (fault.model, now) in self._dead_before:
                return None  # Triton still gives requests to the process that is dead, or hangs: nobody was asked
            self._deaths[fault.model] = now
            if before is not None:
                return Poison(
                    f"poison: {fault.model} died twice while it worked on this request, which is given up ({fault})",
                    kind=fault.kind,
                    model=fault.model,
                )
        elif fault.kind == "broken":
            self._crashes.add(self._generations.of(SERVER))
            if len(self._crashes) >= ATTEMPTS:
                return Unavailable(f"given up: Triton ended {ATTEMPTS} times while it worked on this request ({fault})")
        self._sent += 1
        self._answered += fault.answered
        if self._answered >= ATTEMPTS or (fault.answered and self._sent >= SENDS):
            return fault
        return Unavailable(f"given up after {self._sent} calls: {fault}") if self._sent >= SENDS else None
