"""Addon: ends without cutting anybody off. After SIGTERM or Ctrl-C requests in flight are finished first."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from mitmproxy import ctx
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton import progress, wire

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.service import Service

logger = logging.getLogger(__name__)

TICK: Final = 0.02
QUIET: Final = 3
"""So many ticks in a row without a request in flight: the last answer is out."""


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
        ends = time.monotonic() + self._service.settings.drain_timeout
        if progress.busy():
            logger.info("stopping: waiting for requests in flight")
        quiet = 0
        while quiet < QUIET and time.monotonic() < ends:
            quiet = 0 if progress.busy() or wire.unsent() else quiet + 1
            await asyncio.sleep(TICK)
        await wire.stop_listening()
        if progress.busy():
            logger.warning("stopping: requests are cut off after %s s", self._service.settings.drain_timeout)
