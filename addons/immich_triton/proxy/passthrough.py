"""Addon: claims what the product's classifier says is ours, and streams all else through, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from immich_triton.core import flow_state
from immich_triton.proxy import wire
from immich_triton.proxy.answers import error_response
from immich_triton.proxy.flow_kind import FlowKind, kind_of, may_go_upstream, set_kind
from immich_triton.proxy.targets import address_of

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request

    from immich_triton.core.app import App

KEPT_ANSWER: Final = 4 << 20
"""Stock computes an answer to /predict before it sends it: streaming one of up to so many bytes would gain nothing."""


Classifier = Callable[["Request"], FlowKind]
"""Tells by its head what a request is."""


class PassThrough:
    """Gives every request its kind. Bodies are streamed per flow: the global option would also stream what is ours."""

    def __init__(self, app: App[Any], classify: Classifier) -> None:
        self._app = app
        self._classify = classify

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """Claim the request as what it is; prepare what passes through."""
        if flow.error or kind_of(flow, self._app.id) == "refused":
            return
        flow_state.forget(flow)
        wire.close_upstream(flow.client_conn)
        normalise(flow)
        kind = self._classify(flow.request)
        set_kind(flow, self._app.id, kind)
        if kind == "pass":
            flow.request.stream = True
        elif kind == "predict" and "content-length" not in flow.request.headers:
            detail = "POST /predict needs a Content-Length; Immich always sends one"
            self._app.observers.refused("no_length", 411)
            await wire.answer_at_once(flow, error_response(411, detail))

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Stream the upstream's answer."""
        if kind_of(flow, self._app.id) and may_go_upstream(flow) and flow.response:
            flow.response.stream = not self._is_kept(flow)

    def _is_kept(self, flow: HTTPFlow) -> bool:
        """Whether the upstream's answer stays with the flow, for people who look at it."""
        length = flow.response.headers.get("content-length", "") if flow.response else ""
        return kind_of(flow, self._app.id) == "predict" and length.isdecimal() and int(length) <= KEPT_ANSWER

    def error(self, flow: HTTPFlow) -> None:
        """Say in JSON that the upstream did not answer. Without a live client nobody is left to tell."""
        if flow.error and flow.response is None and kind_of(flow, self._app.id) and may_go_upstream(flow):
            detail = (
                f"The stock Immich ML at {address_of(flow.request)} did not answer: {flow.error.msg}. "
                "This request is not routed to Triton; start the stock ML, or correct its address (--upstream, --mode)."
            )
            self._app.observers.upstream_failed(502)
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
