"""Addon: ends without cutting anybody off. After SIGTERM or Ctrl-C requests in flight are finished first."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mitmproxy import ctx
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.proxy import progress, wire

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.ml.service import Service

logger = logging.getLogger(__name__)

TICK: Final = 0.02
QUIET: Final = 3
"""So many ticks in a row, so that the answer after the last hook is out."""
CLOSING: Final = 2.0
"""Seconds for the last refusals to be read, and then for the connections to close."""


class Drain:
    """First of all, since the ``done`` of the others ends what requests in flight need.

    Meanwhile `Limits` refuses what is new, and `Health` says that we are not there.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Tell the client that this connection ends."""
        if self._service.draining and flow.response and flow.response.status_code != 101:
            flow.response.headers["connection"] = "close"

    def done(self) -> asyncio.Task[None] | None:
        """Wait for requests in flight, unless the script is only loaded anew: then mitmproxy awaits nothing."""
        if not ctx.master.should_exit.is_set():
            return None
        self._service.draining = True
        return create_task(self._drain(), name="drain", keep_ref=True)

    async def _drain(self) -> None:
        timeout = self._service.settings.drain_timeout
        if progress.busy():
            logger.info("stopping: waiting for requests in flight")
        if not await until(lambda: not progress.busy(), timeout):
            logger.warning("stopping: requests are cut off after %s s", timeout)
            self._service.observers.refused("draining", 503, photo=True)
        # Let those in who are at the door: they get their 503.
        await asyncio.sleep(TICK)
        await wire.stop_listening()
        await until(lambda: not progress.refusing() and not wire.unsent(), CLOSING)
        for one in progress.everyone():
            wire.end(one.client)
        # A connection that mitmproxy has to cancel leaves a traceback.
        await until(lambda: not wire.client_ids(), CLOSING)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until *condition* holds for a moment, at most *seconds*; return whether it does."""
    ends, holds = time.monotonic() + seconds, 0
    while holds < QUIET and time.monotonic() < ends:
        holds = holds + 1 if condition() else 0
        await asyncio.sleep(TICK)
    return holds >= QUIET
