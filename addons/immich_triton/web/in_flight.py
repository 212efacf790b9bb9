"""Addon: knows which requests are in flight, and after SIGTERM or Ctrl-C ends without cutting them off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core import flow_state
from immich_triton.core.flow_state import ByClient
from immich_triton.proxy import wire
from immich_triton.proxy.drain import CLOSING, until

if TYPE_CHECKING:
    import asyncio

    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow

    from immich_triton.web.service import Service

logger = logging.getLogger(__name__)


class InFlight:
    """First of all, since the ``done`` of the others ends what requests in flight need.

    Nobody new is let in meanwhile, unlike at the gateway: there a refusal has to be worded, here whoever stands in
    front (a reverse proxy, a browser) knows what a closed port is.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._draining = False
        self._clients: set[Client] = set()
        self._flows: ByClient[set[str]] = ByClient(flow_state.SITE_IN_FLIGHT, lambda _client: set())

    def client_connected(self, client: Client) -> None:
        """Know whom to say goodbye to."""
        self._clients.add(client)

    def client_disconnected(self, client: Client) -> None:
        """Whatever a client that is gone had asked is over."""
        self._clients.discard(client)
        self._flows.pop(client)
        self._count()

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Take note that a request begins."""
        if flow.live and not flow.error:
            self._flows.of(flow.client_conn).add(flow.id)
            self._count()

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Tell the client that this connection ends, if it does; a WebSocket has no end to wait for."""
        if flow.response and flow.response.status_code == 101:
            self._end(flow)
        elif flow.response and self._draining:
            flow.response.headers["connection"] = "close"

    def response(self, flow: HTTPFlow) -> None:
        """Take note that a request is over."""
        self._end(flow)

    def error(self, flow: HTTPFlow) -> None:
        """Take note that a request is over."""
        self._end(flow)

    def done(self) -> asyncio.Task[None] | None:
        """Wait for requests in flight, unless the script is only loaded anew: then mitmproxy awaits nothing."""
        if not ctx.master.should_exit.is_set():
            return None
        self._draining = True
        return create_task(self._drain(), name="drain", keep_ref=True)

    async def _drain(self) -> None:
        timeout = self._service.settings.drain_timeout
        await wire.stop_listening()
        if self._busy():
            logger.info("stopping: waiting for requests in flight")
        if not await until(lambda: not self._busy() and not wire.unsent(), timeout):
            logger.warning("stopping: requests are cut off after %s s (web_drain_timeout)", timeout)
        for client in tuple(self._clients):
            wire.end(client)
        # A connection that mitmproxy has to cancel leaves a traceback.
        await until(lambda: not wire.client_ids(), CLOSING)

    def _busy(self) -> bool:
        return any(self._flows)

    def _end(self, flow: HTTPFlow) -> None:
        if flows := self._flows.get(flow.client_conn):
            flows.discard(flow.id)
            self._count()

    def _count(self) -> None:
        self._service.measurements.in_flight.set(sum(map(len, self._flows)))
