"""What the gateway tells those who count: metrics, catch-up. A subscriber overrides what it wants to hear.

Words that become labels (``reason``, ``route``, ``outcome``) come from small fixed sets; no text of a request, no
path and no secret is ever among them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, override

if TYPE_CHECKING:
    from collections.abc import Callable

    from immich_triton.inspect.comparing import Comparison
    from immich_triton.triton.faults import FaultKind

logger = logging.getLogger(__name__)

RouteTaken = Literal["triton", "upstream", "split", "none"]
"""Who a ``/predict`` was for: "none" when it was refused before that was known."""

Reason = Literal[
    "ok",
    "bad_input",
    "protocol",
    "unavailable",
    "server_fault",
    "refused_by_triton",
    "weights",
    "ledger",
    "configuration",
    "upstream",
    "client_gone",
    "internal",
    "released",
]
"""Why a ``/predict`` ended as it did."""

LOST: Final[tuple[Reason, ...]] = (
    "unavailable",
    "server_fault",
    "refused_by_triton",
    "weights",
    "ledger",
    "configuration",
    "internal",
)
"""Reasons for which Immich gets an error of the server, and a photo stays without its result."""

Refusal = Literal["connections", "draining", "headers", "no_length", "no_room", "no_token", "too_large", "too_slow"]
"""Why a request was answered unread; "connections" was not answered at all (status 0)."""

CatchUp = Literal["started", "busy", "failed"]
"""What became of asking Immich to run what is missing."""


@dataclass
class Clock:
    """Where the time of a request went, in seconds; several tasks of one request add up."""

    waited: float = 0.0
    at_triton: float = 0.0
    at_upstream: float = 0.0


@dataclass(frozen=True)
class RequestDone:
    """One ``/predict`` that the gateway answered itself, or released to the upstream (status 0).

    ``tasks`` are those that a route answers.
    """

    tasks: tuple[str, ...]
    route: RouteTaken
    has_image: bool
    status: int
    reason: Reason
    seconds: float
    clock: Clock = field(default_factory=Clock)


class Observer:
    """Hears everything, does nothing."""

    def request_done(self, done: RequestDone) -> None:
        """Hear that one ``/predict`` is decided."""

    def refused(self, reason: Refusal, status: int, *, photo: bool = False) -> None:
        """Hear that a request was answered unread; *photo*: Immich may have lost an image that was in order."""

    def waiting(self, pipeline: str, count: int) -> None:
        """Hear how many requests of a pipeline wait in the gateway, at the gate or for a place at Triton."""

    def at_triton(self, pipeline: str, count: int) -> None:
        """Hear how many calls of a pipeline are at Triton, those that nobody waits for any more included."""

    def bytes_held(self, count: int) -> None:
        """Hear how many bytes of ``/predict`` bodies are held or expected."""

    def gate_changed(self, pipeline: str, *, is_open: bool, reason: str) -> None:
        """Hear that a gate opened or closed; *reason* is a sentence for people, not a label."""

    def call_failed(self, pipeline: str, kind: FaultKind, *, again: bool) -> None:
        """Hear that one call to Triton failed, how (`FaultKind`), and whether it is tried again."""

    def fell_back(self, task: str) -> None:
        """Hear that a task was answered by the upstream because its gate is closed."""

    def upstream_failed(self, status: int) -> None:
        """Hear that what passes through, or the upstream's part of a split request, got 502 or 504."""

    def catch_up(self, task: str, outcome: CatchUp) -> None:
        """Hear that Immich was asked to run what is missing."""

    def shadow_compared(self, comparison: Comparison, seconds: float) -> None:
        """Tell how the upstream's answer to a task, which took it *seconds*, differs from Triton's."""

    def shadow_failed(self, task: str) -> None:
        """Tell that the upstream gave no answer that could be compared."""


class Observers(Observer):
    """Passes everything on to each subscriber. One that raises harms neither the request nor the others."""

    def __init__(self) -> None:
        self._subscribers: list[Observer] = []

    def subscribe(self, observer: Observer) -> None:
        """Let *observer* hear everything from now on."""
        self._subscribers.append(observer)

    @override
    def request_done(self, done: RequestDone) -> None:
        self._tell(lambda observer: observer.request_done(done))

    @override
    def refused(self, reason: Refusal, status: int, *, photo: bool = False) -> None:
        self._tell(lambda observer: observer.refused(reason, status, photo=photo))

    @override
    def waiting(self, pipeline: str, count: int) -> None:
        self._tell(lambda observer: observer.waiting(pipeline, count))

    @override
    def at_triton(self, pipeline: str, count: int) -> None:
        self._tell(lambda observer: observer.at_triton(pipeline, count))

    @override
    def bytes_held(self, count: int) -> None:
        self._tell(lambda observer: observer.bytes_held(count))

    @override
    def gate_changed(self, pipeline: str, *, is_open: bool, reason: str) -> None:
        self._tell(lambda observer: observer.gate_changed(pipeline, is_open=is_open, reason=reason))

    @override
    def call_failed(self, pipeline: str, kind: FaultKind, *, again: bool) -> None:
        self._tell(lambda observer: observer.call_failed(pipeline, kind, again=again))

    @override
    def fell_back(self, task: str) -> None:
        self._tell(lambda observer: observer.fell_back(task))

    @override
    def upstream_failed(self, status: int) -> None:
        self._tell(lambda observer: observer.upstream_failed(status))

    @override
    def catch_up(self, task: str, outcome: CatchUp) -> None:
        self._tell(lambda observer: observer.catch_up(task, outcome))

    @override
    def shadow_compared(self, comparison: Comparison, seconds: float) -> None:
        self._tell(lambda observer: observer.shadow_compared(comparison, seconds))

    @override
    def shadow_failed(self, task: str) -> None:
        self._tell(lambda observer: observer.shadow_failed(task))

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in self._subscribers:
            try:
                event(observer)
            except Exception:
                logger.exception("an observer failed")
