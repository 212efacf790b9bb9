"""Answers that the gateway gives itself: JSON, in stock's shape for errors."""

from __future__ import annotations

from typing import Final

import orjson
from mitmproxy.http import Response

from immich_triton.core.json_text import dump

RETRY_AFTER = "10"

STOPPING = "immich-triton is stopping"

LONGEST: Final = 160
"""Characters of an error's text that are quoted elsewhere; the whole of it is in the answer."""


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


def detail_of(response: Response) -> str:
    """Return the reason in an error answer on one line, shortened; empty when it is not in stock's form."""
    try:
        detail = orjson.loads(response.raw_content or b"")["detail"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
    text = " ".join(detail.split()) if isinstance(detail, str) else orjson.dumps(detail).decode()
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"
