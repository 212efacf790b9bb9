"""Addon: answers the question whether the site is here, which Immich behind it would answer with a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy.http import Response

from immich_triton.immich.site_ping import PING, PONG
from immich_triton.web.small_json import has_body

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request


class Ping:
    """For the supervisor and `immich-triton doctor`. Anybody may ask: it says that there is a proxy, nothing else."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Keep the question, which is answered here."""
        if _asks(flow.request):
            flow.request.stream = False

    def request(self, flow: HTTPFlow) -> None:
        """Answer it."""
        if not flow.response and not flow.error and _asks(flow.request):
            flow.response = Response.make(200, PONG, {"Content-Type": "text/plain", "Cache-Control": "no-store"})


def _asks(request: Request) -> bool:
    return request.method == "GET" and request.path == PING and not has_body(request)
