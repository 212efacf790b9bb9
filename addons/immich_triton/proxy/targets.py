"""Where a request goes: its path as any server may understand it, and the address of the upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from mitmproxy.http import Request


def fold_path(target: str) -> str:
    """Return the path of a request target as a server may understand it, so that no spelling slips past.

    Query and fragment are cut off, percent-encoding is decoded once (as ASGI servers do), ``//``, ``.``, ``..`` and
    trailing ``/`` and white space are folded: ``/%70redict``, ``//predict/`` and ``/x/../predict`` are ``/predict``. So
    is ``/predict%0a``: the ``$`` of stock's route, ``^/predict$``, also matches before a final line feed.
    """
    path = target.partition("?")[0].partition("#")[0].encode("utf-8", "surrogateescape")
    segments: list[str] = []
    for segment in unquote_to_bytes(path).rstrip(b"/ \t\n\v\f\r").decode("latin-1").split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


def address_of(request: Request) -> str:
    """Return the upstream's address, ``http://host:port``, that a request would go to."""
    host = f"[{request.host}]" if ":" in request.host else request.host
    return f"{request.scheme}://{host}:{request.port}"
