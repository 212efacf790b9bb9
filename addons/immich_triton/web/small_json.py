"""Requests whose body is looked at: JSON of known, small length. Everything else is streamed. Pure."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mitmproxy.http import Request

LARGEST: Final = 1 << 20
"""A search has a few hundred bytes, an order for a thousand photos 40,000; more than so many are none of ours."""


def has_body(request: Request) -> bool:
    """Whether *request* has a body, by its head."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def is_small_json(request: Request, paths: Container[str]) -> bool:
    """Whether *request* posts JSON of known, small length to one of *paths*."""
    length = request.headers.get("content-length", "")
    return (
        request.method == "POST"
        and request.path.partition("?")[0] in paths
        and request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        and "content-encoding" not in request.headers
        and length.isdecimal()
        and int(length) <= LARGEST
    )
