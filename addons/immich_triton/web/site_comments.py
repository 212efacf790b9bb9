"""Addon: comments on what the site did something with, and on what failed; the pictures of a page need no comment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immich_triton.core import flow_state
from immich_triton.proxy.marks import is_loaded, mark

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Response


class Comments:
    """After the addons that answer: in ``response`` and ``error`` everything about a flow is known."""

    def response(self, flow: HTTPFlow) -> None:
        """Comment on an answered flow."""
        if flow.response is None or is_loaded(flow):
            return
        if said := flow_state.SITE.get(flow):
            flow.comment = f"{said} · {_milliseconds(flow, flow.response)}"
        mark(flow, failed=flow.response.status_code >= 500)

    def error(self, flow: HTTPFlow) -> None:
        """Comment on a flow that got no answer."""
        if flow.error is None or is_loaded(flow):
            return
        said = flow_state.SITE.get(flow)
        flow.comment = " · ".join(filter(None, (said, f"Immich did not answer: {flow.error.msg}")))
        mark(flow, failed=True)


def _milliseconds(flow: HTTPFlow, response: Response) -> str:
    """Return the time from the last byte of the request to the first byte of the answer."""
    began = flow.request.timestamp_end or flow.request.timestamp_start
    return f"{1000 * max(0.0, response.timestamp_start - began):.0f} ms"
