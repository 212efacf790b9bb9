"""What the gateway tells those who count: metrics, catch-up. A subscriber overrides the events that it needs.

Words that become labels (``reason``, ``route``, ``outcome``) come from small fixed sets; no text of a request, no
path and no secret is ever among them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, override

if TYPE_CHECKING:
    from collections.abc import Callable


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


FaultKind = Literal["unreachable", "broken", "timeout", "process", "unloaded", "memory", "busy", "status", "garbage"]
"""How a call failed:

* ``unreachable``: no connection. ``broken``: the connection ended before the answer.
* ``timeout``: no answer, and the model does not report ready any more.
* ``process``: a model's process died, or hangs, while Triton goes on to report ready.
* ``unloaded``: the model, or one that it calls, is not loaded; nothing was executed.
* ``memory``: the server has no memory, or no shared memory, left.
* ``busy``: a queue is full, or whatever stands before Triton says that it is not available.
* ``status``: any other error. ``garbage``: an answer that is none.
"""


@dataclass
class Timing:
    """Where the time of a request went, in seconds; several tasks of one request add up."""

    waited: float = 0.0
    at_triton: float = 0.0
    at_upstream: float = 0.0


@dataclass(frozen=True)
class RequestDone:
    """One ``/predict`` that the gateway answered itself, or released to the upstream (status 0).

    ``tasks`` are those that a route answers, ``fell_back`` those of them that the upstream answered in Triton's place.
    """

    tasks: tuple[str, ...]
    route: RouteTaken
    has_image: bool
    status: int
    reason: Reason
    seconds: float
    timing: Timing = field(default_factory=Timing)
    fell_back: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """How the upstream's answer to a task differs from Triton's: how many lines or faces which of them found."""

    task: str
    same: bool
    both: int
    only_ours: int
    only_theirs: int


class Observer:
    """Takes every event and does nothing."""

    def request_done(self, done: RequestDone) -> None:
        """Take note that one ``/predict`` is decided."""

    def refused(self, reason: Refusal, status: int, *, photo: bool = False) -> None:
        """Take note that a request was answered unread; *photo*: Immich may have lost an image that was in order."""

    def waiting(self, pipeline: str, count: int) -> None:
        """Take note how many requests of a pipeline wait in the gateway, at the breaker or for a place at Triton."""

    def at_triton(self, pipeline: str, count: int) -> None:
        """Take note how many calls of a pipeline are at Triton, those that nobody waits for any more included."""

    def bytes_held(self, count: int) -> None:
        """Take note how many bytes of ``/predict`` bodies are held or expected."""

    def breaker_changed(self, pipeline: str, *, is_closed: bool, reason: str) -> None:
        """Take note that requests of a pipeline pass again (*is_closed*) or wait; *reason* is for people, no label."""

    def call_failed(self, pipeline: str, kind: FaultKind, *, again: bool) -> None:
        """Take note that one call to Triton failed, how (`FaultKind`), and whether it is tried again."""

    def fell_back(self, task: str) -> None:
        """Take note that a task was answered by the upstream because its breaker is not closed."""

    def upstream_failed(self, status: int) -> None:
        """Take note that what passes through, or the upstream's part of a split request, got 502 or 504."""

    def catch_up(self, task: str, outcome: CatchUp) -> None:
        """Take note that Immich was asked to run what is missing."""

    def shadow_compared(self, compared: Compared, seconds: float) -> None:
        """Take note how the upstream's answer to a task, which took it *seconds*, differs from Triton's."""

    def shadow_failed(self, task: str) -> None:
        """Take note that the upstream gave no answer that could be compared."""


class Observers(Observer):
    """Passes everything on to each subscriber. One that raises harms neither the request nor the others."""

    def __init__(self) -> None:
        self._subscribers: list[Observer] = []

    def subscribe(self, observer: Observer) -> None:
        """Pass every event on to *observer* from now on."""
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
    def breaker_changed(self, pipeline: str, *, is_closed: bool, reason: str) -> None:
        self._tell(lambda observer: observer.breaker_changed(pipeline, is_closed=is_closed, reason=reason))

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
    def shadow_compared(self, compared: Compared, seconds: float) -> None:
        self._tell(lambda observer: observer.shadow_compared(compared, seconds))

    @override
    def shadow_failed(self, task: str) -> None:
        self._tell(lambda observer: observer.shadow_failed(task))

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in self._subscribers:
            try:
                event(observer)
            except Exception:
                logger.exception("an observer failed")
