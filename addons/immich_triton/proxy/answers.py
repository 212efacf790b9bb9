"""Answers that the gateway gives itself: JSON, in stock's shape for errors."""

from __future__ import annotations

from mitmproxy.http import Response

from immich_triton.ml.protocol import dump

RETRY_AFTER = "10"

STOPPING = "immich-triton is stopping"


def json_response(status: int, body: object) -> Response:
    """Return a response with *body* as JSON; 503 says when to come again."""
    headers = {"content-type": "application/json"}
    if status == 503:
        headers["retry-after"] = RETRY_AFTER
    return Response.make(status, dump(body), headers)


def error_response(status: int, detail: object) -> Response:
    """Return an error: ``{"detail": …}``."""
    if isinstance(detail, str):  # a lone surrogate, quoted from a request, cannot be written as JSON
        detail = detail.encode("utf-8", "replace").decode()
    return json_response(status, {"detail": detail})
