"""Addon: passes the whole site through, each flow streamed by itself, and picks out the requests that are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immich_triton.immich.api import METADATA, SMART
from immich_triton.web.failopen import stock_instead

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request

    from immich_triton.web.service import Service

LARGEST_SEARCH: Final = 1 << 20
"""A search has a few hundred bytes; a body of more than so many is none of ours."""

SEARCHES: Final = (SMART, METADATA)
"""Any other spelling is stock's."""


class Site:
    """Bodies are streamed per flow, never by the global option: an upload of gigabytes takes no memory here."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Keep the body of a search, stream any other; tell Immich who asks."""
        # First, so that a fault further down cannot make a gigabyte wait in memory.
        flow.request.stream = True
        try:
            normalise(flow.request)
            if self._service.settings.forwarded:
                tell_who_asks(flow)
            flow.request.stream = not (self._service.settings.searches and is_search(flow.request))
        except Exception as error:  # noqa: BLE001 - whatever it is, the request goes its way
            stock_instead("a request", error)

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Stream the answer of Immich; ours has its body already."""
        if flow.response and flow.response.raw_content is None:
            flow.response.stream = True


def is_search(request: Request) -> bool:
    """Whether a request is a search in JSON whose body can be looked at: of known, small length."""
    length = request.headers.get("content-length", "")
    return (
        request.method == "POST"
        and request.path.partition("?")[0] in SEARCHES
        and request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        and "content-encoding" not in request.headers
        and length.isdecimal()
        and int(length) <= LARGEST_SEARCH
    )


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
