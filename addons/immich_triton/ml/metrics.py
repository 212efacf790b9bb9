"""Addon: metrics for Prometheus, and health for whoever runs the gateway."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.ml.measurements import Measurements
from immich_triton.proxy.claims import kind_of, may_go_upstream
from immich_triton.proxy.metrics_server import Address, MetricsServer, listen, parse_address

if TYPE_CHECKING:
    import socket

    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow

    from immich_triton.ml.service import Service

logger = logging.getLogger(__name__)


class Metrics:
    """After the addons that claim and answer flows, so that it sees what became of them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._measurements = Measurements()
        service.observers.subscribe(self._measurements)
        self._server: MetricsServer | None = None
        self._address: Address | None = None
        self._running = False
        self._in_flight: dict[str, set[str]] = {}

    def configure(self, updated: AbstractSet[str]) -> None:
        """Listen where the option says. Raises OptionsError when that is not possible."""
        if "immich_metrics_listen" not in updated:
            return
        try:
            address = parse_address(ctx.options.immich_metrics_listen)
            if address != self._address:
                self._move(address)
        except ValueError as error:
            raise OptionsError(f"immich-triton: {error}") from error

    def running(self) -> None:
        """Begin to answer: now there is an event loop."""
        self._running = True
        self._serve()

    def done(self) -> None:
        """Give the address back."""
        self._close()

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Count a request as in flight."""
        if kind_of(flow, self._service.id) == "predict" and not flow.error and flow.live:
            self._in_flight.setdefault(flow.client_conn.id, set()).add(flow.id)
            self._show_in_flight()

    def response(self, flow: HTTPFlow) -> None:
        """Count an answer."""
        self._end(flow)
        kind = kind_of(flow, self._service.id)
        if kind is None or flow.response is None or not flow.live:
            return
        if kind == "ping":
            self._measurements.pinged(flow.response.status_code)
        elif may_go_upstream(flow):
            self._measurements.passed_through(kind, flow.response.status_code)

    def error(self, flow: HTTPFlow) -> None:
        """Count a request that got no answer as ended."""
        self._end(flow)

    def client_disconnected(self, client: Client) -> None:
        """Count whatever a client that is gone had asked as ended."""
        if self._in_flight.pop(client.id, None):
            self._show_in_flight()

    def _move(self, address: Address | None) -> None:
        """Serve at *address*, None for nowhere. Raises ValueError, and then it serves where it did."""
        before = self._address
        listener: socket.socket | None
        if address and before and address[1] == before[1]:
            # On the same port the old listener is in the way: 0.0.0.0 includes 127.0.0.1.
            self._close()
            try:
                listener = listen(*address)
            except ValueError:
                self._open(before, listen(*before))
                raise
        else:
            listener = listen(*address) if address else None
            self._close()
        if address and listener:
            self._open(address, listener)

    def _open(self, address: Address, listener: socket.socket) -> None:
        self._address = address
        self._server = MetricsServer(self._service, self._measurements, listener)
        if self._running:
            self._serve()

    def _end(self, flow: HTTPFlow) -> None:
        flows = self._in_flight.get(flow.client_conn.id)
        if flows and flow.id in flows:
            flows.discard(flow.id)
            if not flows:
                del self._in_flight[flow.client_conn.id]
            self._show_in_flight()

    def _show_in_flight(self) -> None:
        self._measurements.in_flight.set(sum(map(len, self._in_flight.values())))

    def _serve(self) -> None:
        if self._server is not None and self._address is not None:
            create_task(self._server.serve(), name="serve the metrics", keep_ref=True)
            host, port = self._address
            logger.info("metrics at http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._address = None
