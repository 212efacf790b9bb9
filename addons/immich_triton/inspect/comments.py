"""Addon: gives each flow a comment of one line, so that the flow list alone tells the story, and marks the errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immich_triton.core import flow_state
from immich_triton.ml.notes import UPSTREAM, answered_by
from immich_triton.proxy.answers import detail_of
from immich_triton.proxy.flow_kind import kind_of, may_go_upstream
from immich_triton.proxy.marks import is_loaded, mark

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Response

    from immich_triton.ml.service import Service
    from immich_triton.proxy.flow_kind import FlowKind


class Comments:
    """After the addons that answer: in ``response`` and ``error`` everything about a flow is known."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def response(self, flow: HTTPFlow) -> None:
        """Comment on an answered flow."""
        kind = kind_of(flow, self._service.id)
        if kind is None or flow.response is None or is_loaded(flow):
            return
        flow.comment = comment_on(kind, flow, flow.response)
        mark(flow, failed=flow.response.status_code >= 400)

    def error(self, flow: HTTPFlow) -> None:
        """Comment on a flow that got no answer."""
        kind = kind_of(flow, self._service.id)
        if kind is None or flow.error is None or is_loaded(flow):
            return
        who = "the upstream did not answer" if may_go_upstream(flow) else "no answer"
        reason = flow_state.WRITTEN.get(flow) or f"{who}: {flow.error.msg}"
        flow.comment = " · ".join(filter(None, (reason, flow_state.ROUTES.get(flow) if kind == "predict" else "")))
        mark(flow, failed=True)


def comment_on(kind: FlowKind, flow: HTTPFlow, response: Response) -> str:
    """Return the comment on a flow of that *kind* and its *response*."""
    failed = response.status_code >= 400
    if kind == "ping":
        return _failure(flow, response) if failed else "ready"
    if kind == "pass":
        return f"{response.status_code} {UPSTREAM}" if failed else f"{UPSTREAM} · {_milliseconds(flow, response)}"
    if failed:
        return " · ".join(filter(None, (_failure(flow, response), flow_state.ROUTES.get(flow))))
    return f"{answered_by(flow) or UPSTREAM} · {_milliseconds(flow, response)}"


def _failure(flow: HTTPFlow, response: Response) -> str:
    """Return status and reason of an error, as short as it can be said."""
    status = response.status_code
    if flow_state.FAULT.get(flow) == "Unavailable":
        return f"{status} waiting for Triton"
    return f"{status} {detail_of(response)}".strip()


def _milliseconds(flow: HTTPFlow, response: Response) -> str:
    """Return the time from the last byte of the request to the first byte of the answer."""
    began = flow.request.timestamp_end or flow.request.timestamp_start
    return f"{1000 * max(0.0, response.timestamp_start - began):.0f} ms"
