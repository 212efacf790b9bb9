"""Answers as Immich gives them: its own headers, its own shape, compressed if the client can read that. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from mitmproxy.http import Headers, Request, Response

from immich_triton.immich.api import Answer
from immich_triton.web.immich import Found

OF_THE_BODY: Final = frozenset(
    {"content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "etag"}
)
"""Headers that belong to the body, or the connection, that Immich's answer came with."""

WORTH_PACKING: Final = 1024
"""Bytes; Immich compresses from here on too."""

CORRELATION_OF_2: Final = "x-immich-cid"
"""A header on every answer of Immich 2.x; 3.x has another."""

GZIP: Final = 16 + zlib.MAX_WBITS


def page_of(request: Request, found: Found, items: Sequence[Any], next_page: int | None) -> Response:
    """Return an answer with *items* in the place of those that Immich *found*."""
    assets = {
        **found.body["assets"],
        "total": len(items),
        "count": len(items),
        "items": items,
        "nextPage": None if next_page is None else str(next_page),
    }
    if "nextCursor" in assets:
        assets["nextCursor"] = None
    return as_sent(request, found.answer, orjson.dumps({**found.body, "assets": assets}))


def as_sent(request: Request, answer: Answer, content: bytes | None = None) -> Response:
    """Return Immich's *answer*, or one with other *content*."""
    content = answer.content if content is None else content
    headers = Headers([(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in answer.headers])
    for name in OF_THE_BODY & {name.lower() for name in headers}:
        del headers[name]
    if len(content) >= WORTH_PACKING and _reads_gzip(request):
        packer = zlib.compressobj(level=1, wbits=GZIP)
        content = packer.compress(content) + packer.flush()
        headers["content-encoding"] = "gzip"
        if "accept-encoding" not in headers.get("vary", "").lower():
            headers.add("vary", "Accept-Encoding")
    response = Response.make(answer.status, b"", headers)
    response.raw_content = content
    if answer.status == 204:
        del response.headers["content-length"]  # RFC 9110, 8.6
    else:
        response.headers["content-length"] = str(len(content))
    return response


def error(request: Request, seen: Answer, status: int, message: str) -> Response:
    """Return an error in the shape of the Immich that gave the answer *seen* to the same request."""
    headers = {name.lower(): value for name, value in seen.headers}
    body: dict[str, Any] = {"message": message}
    if CORRELATION_OF_2 in headers:  # since 3.0 an error is its message alone
        body |= {"error": HTTPStatus(status).phrase, "statusCode": status, "correlationId": headers[CORRELATION_OF_2]}
    return as_json(request, seen, status, body)


def as_json(request: Request, seen: Answer, status: int, body: object) -> Response:
    """Return *body* with the headers that Immich gave to *seen*."""
    kept = tuple((name, value) for name, value in seen.headers if name.lower() != "content-type")
    answer = Answer(status, (*kept, ("Content-Type", "application/json; charset=utf-8")), orjson.dumps(body))
    return as_sent(request, answer)


def _reads_gzip(request: Request) -> bool:
    for coding in request.headers.get("accept-encoding", "").split(","):
        name, _, weight = coding.replace(" ", "").partition(";")
        if name.lower() in ("gzip", "*"):
            return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
