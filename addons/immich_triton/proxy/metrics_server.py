"""Serves ``/metrics``, ``/healthz`` and ``/readyz`` on an address of their own, in mitmproxy's event loop.

Apart from the port of the product: what Immich and strangers can reach must not tell anything, and every path of that
port belongs to the upstream.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web
from mitmproxy.utils.asyncio_utils import create_task
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BACKLOG: Final = 16


def listen(host: str, port: int, remedy: str) -> socket.socket:
    """Return a listening socket. Raises ValueError with the *remedy* when that is not possible.

    At once, not when the event loop gets to it: a gateway whose metrics are missing must not start.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ValueError(f"cannot serve metrics on {host}:{port}: {error.strerror}. {remedy}") from error
    listener.setblocking(False)
    return listener


Collect = Callable[[], Awaitable[None]]
"""Brings the metrics up to date."""

WhyNotReady = Callable[[], Awaitable[dict[str, str]]]
"""Returns what is not ready, with the reason."""


class MetricsServer:
    """Answers on *listener*, which it owns: *registry* after *collect* at every scrape, *why_not_ready* for health."""

    def __init__(
        self, listener: socket.socket, registry: CollectorRegistry, *, collect: Collect, why_not_ready: WhyNotReady
    ) -> None:
        self._listener = listener
        self._registry = registry
        self._collect = collect
        self._why_not_ready = why_not_ready
        self._listening: asyncio.Server | None = None
        self._http: web.Server | None = None

    async def serve(self) -> None:
        """Begin to answer."""
        self._http = web.Server(self._answer, access_log=None)
        self._listening = await asyncio.get_running_loop().create_server(self._http, sock=self._listener)

    def close(self) -> None:
        """Give the address back at once: a reloaded script wants it in the same moment."""
        if self._listening is not None:
            self._listening.close()
        self._listener.close()
        if self._http is not None:
            create_task(self._http.shutdown(timeout=1), name="close the metrics' connections", keep_ref=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        answers = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}
        if (answer := answers.get(request.path)) is None:
            return web.Response(status=404, text="/metrics, /healthz or /readyz\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"allow": "GET, HEAD"})
        return await answer(request)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        await self._collect()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        response = web.Response(body=encode(self._registry), headers={"content-type": content_type})
        response.enable_compression()
        return response

    async def _healthz(self, _request: web.BaseRequest) -> web.Response:
        """Answer whenever the event loop turns: the process need not be started anew."""
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.BaseRequest) -> web.Response:
        """Tell whether all that the product is there for can be answered."""
        unready = await self._why_not_ready()
        answer = {"ready": not unready, "unready": unready}
        return web.Response(status=503 if unready else 200, body=orjson.dumps(answer), content_type="application/json")
