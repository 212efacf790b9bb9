"""Addon: passes the whole site through, each flow streamed by itself, and picks out the requests that are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immich_triton.core import flow_state
from immich_triton.immich.api import METADATA, SMART
from immich_triton.web.failopen import stock_instead
from immich_triton.web.reprocessing import tasks
from immich_triton.web.small_json import is_small_json

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request

    from immich_triton.web.service import Service

SEARCHES: Final = (SMART, METADATA)
"""Any other spelling is stock's."""


class Site:
    """Bodies are streamed per flow, never by the global option: an upload of gigabytes takes no memory here."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Keep the body of what may be ours, stream any other; tell Immich who asks."""
        # First, so that a fault further down cannot make a gigabyte wait in memory.
        flow.request.stream = True
        flow_state.forget(flow)
        try:
            normalise(flow.request)
            if self._service.settings.forwarded:
                tell_who_asks(flow)
            flow.request.stream = not self._is_ours(flow.request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request goes its way
            stock_instead("request", error, self._service.measurements)

    def _is_ours(self, request: Request) -> bool:
        """Whether a request is looked at as a whole, and perhaps answered here."""
        searched = self._service.settings.searches and is_search(request)
        return searched or tasks.is_order(request) or tasks.asked_about(request) is not None

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Stream the answer of Immich; ours has its body already."""
        if flow.response and flow.response.raw_content is None:
            flow.response.stream = True


def is_search(request: Request) -> bool:
    """Whether a request is a search whose body can be looked at."""
    return is_small_json(request, SEARCHES)


def normalise(request: Request) -> None:
    """Make a request one for Immich alone.

    An absolute-form target loses its authority: this is no open proxy. Of the upgrades only that to WebSocket passes:
    behind another one requests would run through the tunnel unseen.
    """
    request.authority = ""
    if request.headers.get("upgrade", "websocket").lower() != "websocket":
        for name in ("upgrade", "http2-settings"):
            request.headers.pop(name, None)


def tell_who_asks(flow: HTTPFlow) -> None:
    """Add the client to X-Forwarded-For, as every reverse proxy does, and say how it asked if nobody has said yet.

    Immich believes these headers from the private networks (IMMICH_TRUSTED_PROXIES), and takes the last address that
    is not in one of them: what a client invents in front of it has no effect.
    """
    headers = flow.request.headers
    client = flow.client_conn.peername[0].removeprefix("::ffff:")
    before = headers.get("x-forwarded-for")
    headers["x-forwarded-for"] = f"{before}, {client}" if before else client
    if "x-forwarded-proto" not in headers:
        headers["x-forwarded-proto"] = "https" if flow.client_conn.tls else "http"
