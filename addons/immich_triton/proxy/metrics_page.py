"""Where the metrics are served: can be changed while mitmproxy runs, and a change that fails changes nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.proxy.metrics_server import Collect, MetricsServer, WhyNotReady, listen

if TYPE_CHECKING:
    import socket

    from prometheus_client import CollectorRegistry

    from immich_triton.core.option_kinds import Address

logger = logging.getLogger(__name__)


class MetricsPage:
    """Serves *registry* after *collect* at every scrape, and health by *why_not_ready*.

    *remedy* says how another address is chosen, when one is taken.
    """

    def __init__(
        self, registry: CollectorRegistry, *, collect: Collect, why_not_ready: WhyNotReady, remedy: str
    ) -> None:
        self._registry = registry
        self._collect = collect
        self._why_not_ready = why_not_ready
        self._remedy = remedy
        self._server: MetricsServer | None = None
        self._address: Address | None = None
        self._running = False

    def move(self, address: Address | None) -> None:
        """Serve at *address*, None for nowhere. Raises ValueError, and then it serves where it did."""
        before = self._address
        if address == before:
            return
        listener: socket.socket | None
        if address and before and address[1] == before[1]:
            # On the same port the old listener is in the way: 0.0.0.0 includes 127.0.0.1.
            self.close()
            try:
                listener = listen(*address, self._remedy)
            except ValueError:
                self._open(before, listen(*before, self._remedy))
                raise
        else:
            listener = listen(*address, self._remedy) if address else None
            self.close()
        if address and listener:
            self._open(address, listener)

    def running(self) -> None:
        """Begin to answer: now there is an event loop."""
        self._running = True
        self._serve()

    def close(self) -> None:
        """Give the address back."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._address = None

    def _open(self, address: Address, listener: socket.socket) -> None:
        self._address = address
        self._server = MetricsServer(listener, self._registry, collect=self._collect, why_not_ready=self._why_not_ready)
        if self._running:
            self._serve()

    def _serve(self) -> None:
        if self._server is not None and self._address is not None:
            create_task(self._server.serve(), name="serve the metrics", keep_ref=True)
            host, port = self._address
            logger.info("metrics at http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)
