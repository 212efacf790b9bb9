"""Serves ``/metrics``, ``/healthz`` and ``/readyz`` on an address of their own, in mitmproxy's event loop.

Apart from the gateway's port: what Immich and strangers can reach must not tell anything, and every path of that port
belongs to the stock ML.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web
from mitmproxy.utils.asyncio_utils import create_task
from prometheus_client.exposition import choose_encoder

from immich_triton.ml.protocol import ProtocolError

if TYPE_CHECKING:
    from immich_triton.ml.measurements import Measurements
    from immich_triton.ml.service import Service

WITHIN: Final = 0.8
"""Seconds Triton has to answer; Prometheus gives up after 10, Kubernetes' probes after 1."""

BACKLOG: Final = 16


type Address = tuple[str, int]
"""Host and port."""


def parse_address(text: str) -> Address | None:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``; None when *text* is empty. Raises ValueError."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not (host and colon and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError(f"immich_metrics_listen must be empty or look like 127.0.0.1:9464 or [::1]:9464, not {text!r}")
    return host, int(port)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ValueError with what to do when that is not possible.

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
        raise ValueError(
            f"cannot serve metrics on {host}:{port}: {error.strerror}. Choose another address with "
            "immich_metrics_listen (make run METRICS_PORT=…); immich_metrics_listen= goes without metrics"
        ) from error
    listener.setblocking(False)
    return listener


class MetricsServer:
    """Answers on *listener*, which it owns."""

    def __init__(self, service: Service, measurements: Measurements, listener: socket.socket) -> None:
        self._service = service
        self._measurements = measurements
        self._listener = listener
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
        await self._look()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        response = web.Response(body=encode(self._measurements.registry), headers={"content-type": content_type})
        response.enable_compression()
        return response

    async def _healthz(self, _request: web.BaseRequest) -> web.Response:
        """Answer whenever the event loop turns: the process need not be started anew."""
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.BaseRequest) -> web.Response:
        """Tell whether every route can be answered, by the same question as Immich's ping."""
        try:
            unready = await self._service.why_not_ready(within=WITHIN)
        except ProtocolError as error:
            unready = {"gateway": str(error.detail)}
        if self._service.draining:
            unready = {"gateway": "stopping", **unready}
        answer = {"ready": not unready, "unready": unready}
        return web.Response(status=503 if unready else 200, body=orjson.dumps(answer), content_type="application/json")

    async def _look(self) -> None:
        """Ask Triton how it is, at every scrape: a state that is only heard of after a fault would be stale."""
        try:
            table, triton, settings = self._service.table, self._service.triton, self._service.settings
        except ProtocolError:
            return
        pipelines = {pipeline.all_models: pipeline for pipeline in table.pipelines()}
        models = list(dict.fromkeys(model for pipeline in pipelines.values() for model in pipeline.all_models))
        up, unready = await asyncio.gather(triton.is_live(within=WITHIN), triton.not_ready(models, within=WITHIN))
        self._measurements.look_at_triton(
            up=up,
            ready={model: model not in unready for model in models},
            breakers=[(pipeline, triton.gate(pipeline).state) for pipeline in pipelines.values()],
        )
        names: dict[str, int] = {}
        for route in table.routes:
            names[route.task] = names.get(route.task, 0) + len(route.names)
        self._measurements.look_at_settings(names, settings.max_waiting)
