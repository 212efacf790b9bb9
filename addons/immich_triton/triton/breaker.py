"""A circuit breaker per pipeline: while Triton cannot answer, requests wait here, and one probe asks for all of them.

Closed, it lets everything pass, open nothing. When Triton said itself what is wrong (it is away, a model is not loaded)
its word is taken for it that all is well again. A model whose process died, or hangs, reports ready all the while: then
the breaker is half-open, and one request at a time passes, until one is answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from immich_triton.core.request_id import detached

if TYPE_CHECKING:
    from immich_triton.core.observer import Observer
    from immich_triton.triton.pipelines import Pipeline

logger = logging.getLogger(__name__)

PROBE_FIRST: Final = 0.05
PROBE_LAST: Final = 1.0
"""Bounds of the pause between two readiness probes, in seconds; it doubles from one to the other."""

PROBE_STUCK: Final = 0.2
"""That pause while a model reports ready and does not work: that it is loaded anew is seen only while it lasts."""

TRIAL_FIRST: Final = 1.0
TRIAL_LAST: Final = 8.0
"""Bounds of the pause before one request is let through, in seconds; it doubles with each that fails. A model that was
loaded anew is tried at once."""

TRUST: Final = 30.0
"""Seconds after which a breaker closes that nobody came to try: whoever asks whether we are ready before he sends
anything (a load balancer) would wait for ever."""

State = Literal["closed", "half_open", "open"]

Probe = Callable[[], Awaitable[dict[str, str]]]
"""Returns what is not ready, with the reason; empty when the pipeline can answer."""


class Passage:
    """The leave to send one call; a *trial* decides whether the breaker closes."""

    def __init__(self, *, trial: bool) -> None:
        self.trial = trial


class Breaker:
    """Lets the requests of one pipeline pass while it works; *reopened* is called whenever it works again."""

    def __init__(
        self, pipeline: Pipeline, probe: Probe, observer: Observer, reopened: Callable[[], None] = lambda: None
    ) -> None:
        self._name = pipeline.name
        self._probe = probe
        self._observer = observer
        self._reopened = reopened
        self._passable = asyncio.Event()
        self._passable.set()
        self._trial: Passage | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failures = 0
        self._stuck = False
        self._pause = PROBE_FIRST
        self._trial_pause = TRIAL_FIRST
        self._trial_at = 0.0
        self._since = 0.0
        self.suspects = asyncio.Lock()
        """For those requests one at a time over which a process died."""
        self.state: State = "closed"
        self.reason = ""

    @property
    def is_closed(self) -> bool:
        """Whether all requests pass (the breaker is closed)."""
        return self.state == "closed"

    @property
    def passable(self) -> bool:
        """Whether a request passes now."""
        return self._passable.is_set()

    async def passed(self) -> None:
        """Wait until a request may pass."""
        await self._passable.wait()

    def enter(self) -> Passage | None:
        """Pass; return None when the breaker does not let this request pass after all."""
        if not self.passable:
            return None
        passage = Passage(trial=self.state == "half_open")
        if passage.trial:
            self._trial = passage
            self._passable.clear()
        return passage

    def succeeded(self, passage: Passage) -> None:
        """Take note that a call was answered."""
        self._failures = 0
        if self._trial is passage and self.state == "half_open":
            self._close()

    def leave(self, passage: Passage) -> None:
        """Take note that a call is over; what its end says about Triton, if anything, was said before."""
        if self._trial is passage:
            self._trial = None
            if self.state == "half_open":
                self._passable.set()

    def open(self, reason: str, passage: Passage | None = None, *, stuck: bool = False) -> None:
        """Let nothing pass until the pipeline and every model behind it report ready.

        *stuck*: they do so already, and do not work; then also until a call is answered. *passage* is that of the call
        that failed.
        """
        self.reason = reason
        newly = stuck and not self._stuck
        self._stuck |= stuck
        if self.state == "closed":
            self._begin(reason)
        elif newly:
            self._try_later(TRIAL_FIRST)
        elif self.state == "half_open" and passage is not None and self._trial is passage:
            self._try_later(min(2 * self._trial_pause, TRIAL_LAST))

    def close(self) -> None:
        """Stop probing."""
        if self._watching:
            self._watching.cancel()

    def _begin(self, reason: str) -> None:
        # Doubled by each failure since the last answer: what fails and reports ready is not asked all the time.
        self._pause = min(PROBE_FIRST * 2 ** min(self._failures, 10), PROBE_LAST)
        self._failures += 1
        self._since = time.monotonic()
        self._try_later(TRIAL_FIRST)
        logger.warning("%s: waiting for Triton: %s", self._name, reason)
        self._observer.breaker_changed(self._name, is_closed=False, reason=reason)
        self._watching = detached(self._watch(), f"probe {self._name}")

    def _try_later(self, pause: float) -> None:
        self.state = "open"
        self._passable.clear()
        self._trial_pause, self._trial_at = pause, time.monotonic() + pause

    def _half_open(self) -> None:
        logger.info("%s: trying one request at a time: %s", self._name, self.reason)
        self.state = "half_open"
        if self._trial is None:
            self._passable.set()

    def _close(self) -> None:
        logger.warning("%s: Triton is back after %.1f s", self._name, time.monotonic() - self._since)
        self.state, self._stuck, self.reason = "closed", False, ""
        self._observer.breaker_changed(self._name, is_closed=True, reason="")
        self._passable.set()
        self._reopened()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(self._pause, PROBE_STUCK) if self._stuck else self._pause)
            unready = await self._probe()
            if self.is_closed:  # by a call that was answered meanwhile
                return
            now = time.monotonic()
            if unready:
                self.reason = "; ".join(f"{model}: {why}" for model, why in unready.items())
                self._pause = min(2 * self._pause, PROBE_LAST)
                # What comes back are other processes: the first call may come at once.
                self._try_later(0)
            elif not self._stuck or self._untried(now):
                self._close()
                return
            elif self.state == "open" and now >= self._trial_at:
                self._half_open()

    def _untried(self, now: float) -> bool:
        return self.state == "half_open" and self._trial is None and now - self._trial_at > TRUST
