"""Addon: decides by path what is ours, and streams all else through, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immich_triton.ml import notes, upstream
from immich_triton.ml.protocol import fold_path
from immich_triton.proxy import wire
from immich_triton.proxy.answers import error_response
from immich_triton.proxy.claims import claim, kind_of, may_go_upstream

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.ml.service import Service

KEPT_ANSWER: Final = 4 << 20
"""Stock computes an answer to /predict before it sends it: streaming one of up to so many bytes would gain nothing."""


class PassThrough:
    """Claims every request. Bodies are streamed per flow: the global option would also stream what is ours."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """Tell the three kinds of requests apart; prepare what passes through."""
        if flow.error or kind_of(flow, self._service.id) == "refused":
            return
        notes.forget(flow)
        wire.close_upstream(flow.client_conn)
        normalise(flow)
        path, method = fold_path(flow.request.path), flow.request.method.upper()
        if path == "/predict" and method == "POST":
            claim(flow, self._service.id, "predict")
            if "content-length" not in flow.request.headers:
                detail = "POST /predict needs a Content-Length; Immich always sends one"
                self._service.observers.refused("no_length", 411)
                await wire.answer_at_once(flow, error_response(411, detail))
        elif path == "/ping" and method == "GET":
            claim(flow, self._service.id, "ping")
        else:
            claim(flow, self._service.id, "pass")
            flow.request.stream = True

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Stream the upstream's answer."""
        if kind_of(flow, self._service.id) and may_go_upstream(flow) and flow.response:
            flow.response.stream = not self._is_kept(flow)

    def _is_kept(self, flow: HTTPFlow) -> bool:
        """Whether the upstream's answer stays with the flow, for people who look at it."""
        length = flow.response.headers.get("content-length", "") if flow.response else ""
        return kind_of(flow, self._service.id) == "predict" and length.isdecimal() and int(length) <= KEPT_ANSWER

    def error(self, flow: HTTPFlow) -> None:
        """Say in JSON that the upstream did not answer. Without a live client nobody is left to tell."""
        if flow.error and flow.response is None and kind_of(flow, self._service.id) and may_go_upstream(flow):
            detail = (
                f"The stock Immich ML at {upstream.address_of(flow.request)} did not answer: {flow.error.msg}. "
                "This request is not routed to Triton; start the stock ML, or correct its address (UPSTREAM, --mode)."
            )
            self._service.observers.upstream_failed(502)
            wire.answer_instead_of_error(flow, error_response(502, detail))


def normalise(flow: HTTPFlow) -> None:
    """Make a request one for the upstream alone.

    An absolute-form target loses its authority: this is no open proxy. Of the upgrades only that to WebSocket passes:
    behind another one (h2c) requests would run through the tunnel unseen.
    """
    flow.request.authority = ""
    if flow.request.headers.get("upgrade", "websocket").lower() != "websocket":
        for name in ("upgrade", "http2-settings"):
            flow.request.headers.pop(name, None)
