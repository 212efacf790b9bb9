"""A gate per pipeline: while Triton cannot answer, requests wait here, and one probe asks for all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from mitmproxy.utils.asyncio_utils import create_task

if TYPE_CHECKING:
    from immich_triton.observer import Observer
    from immich_triton.routes import Pipeline

logger = logging.getLogger(__name__)

PROBE_FIRST: Final = 0.05
PROBE_LAST: Final = 1.0
"""Bounds of the pause between two readiness probes, in seconds; it doubles from one to the other."""

Probe = Callable[[], Awaitable[dict[str, str]]]
"""Returns what is not ready, with the reason; empty when the pipeline can answer."""


class Gate:
    """Lets the requests of one pipeline pass while it works."""

    def __init__(self, pipeline: Pipeline, probe: Probe, observer: Observer) -> None:
        self._name = pipeline.name
        self._probe = probe
        self._observer = observer
        self._open = asyncio.Event()
        self._open.set()
        self._probing: asyncio.Task[None] | None = None
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """Whether requests pass."""
        return self._open.is_set()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._open.wait()

    def shut(self, reason: str) -> None:
        """Close the gate until the pipeline and every model behind it report ready."""
        self.reason = reason
        if self._open.is_set():
            self._open.clear()
            logger.warning("%s: waiting for Triton: %s", self._name, reason)
            self._observer.gate_changed(self._name, is_open=False, reason=reason)
            self._probing = create_task(self._reopen(), name=f"probe {self._name}", keep_ref=True)

    async def _reopen(self) -> None:
        pause, since = PROBE_FIRST, time.monotonic()
        while True:
            await asyncio.sleep(pause)
            unready = await self._probe()
            if not unready:
                break
            self.reason = "; ".join(f"{model}: {why}" for model, why in unready.items())
            pause = min(2 * pause, PROBE_LAST)
        logger.warning("%s: Triton is back after %.1f s", self._name, time.monotonic() - since)
        self._observer.gate_changed(self._name, is_open=True, reason="")
        self._open.set()

    def close(self) -> None:
        """Stop probing."""
        if self._probing:
            self._probing.cancel()
