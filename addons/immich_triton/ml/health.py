"""Addon: answers ``GET /ping``, by which Immich decides every 30 s whether this server is healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy.http import Response

from immich_triton.core.errors import ProtocolError
from immich_triton.proxy.answers import STOPPING, error_response
from immich_triton.proxy.flow_kind import kind_of

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.ml.service import Service

WITHIN = 0.8
"""Seconds Triton has to answer; Immich gives up after 2."""


class Health:
    """``pong`` when every route is ready, else 503 with what is missing. The upstream is not asked."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def request(self, flow: HTTPFlow) -> None:
        """Answer a ping."""
        if kind_of(flow, self._service.id) != "ping":
            return
        if self._service.draining:
            flow.response = error_response(503, STOPPING)
            return
        try:
            unready = await self._service.why_not_ready(within=WITHIN)
        except ProtocolError as error:
            flow.response = error_response(error.status, error.detail)
        except BaseException as error:  # noqa: BLE001 - a hook that raises would let the flow go upstream
            flow.response = error_response(503, f"internal error in the gateway: {error!r}")
        else:
            if unready:
                detail = "; ".join(f"{model}: {reason}" for model, reason in unready.items())
                flow.response = error_response(503, detail)
            else:
                flow.response = Response.make(200, b"pong", {"content-type": "text/plain; charset=utf-8"})
