"""Who asks: what of a request has to go along when we ask Immich in the caller's name. Pure."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from immich_triton.immich.api import KEY_HEADER

if TYPE_CHECKING:
    from mitmproxy.http import Request

NOT_PASSED_ON: Final = frozenset(
    {
        # Of this connection.
        *(
            "host",
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "expect",
        ),
        # Of this body, and of what the client can read.
        *("content-length", "content-type", "content-encoding", "expect", "accept-encoding"),
        *("if-none-match", "if-modified-since", "range"),
    }
)

CREDENTIALS: Final = (
    *("authorization", KEY_HEADER, "x-immich-user-token", "x-immich-session-token"),
    *("x-immich-share-key", "x-immich-share-slug"),
)
OF_SHARED_LINKS: Final = ("key", "slug")

_SALT: Final = secrets.token_bytes(32)


@dataclass(frozen=True)
class Caller:
    """All headers, credentials among them, and the query string; *key* tells callers apart and names none."""

    headers: tuple[tuple[str, str], ...]
    query: str
    key: bytes
    by_link: bool


def caller_of(request: Request) -> Caller:
    """Return who sends *request*."""
    headers = tuple(
        (name, value) for name, value in request.headers.items(multi=True) if name.lower() not in NOT_PASSED_ON
    )
    query = request.path.partition("?")[2]
    credentials = [f"{name}: {request.headers.get(name, '')}" for name in CREDENTIALS]
    credentials += sorted(_cookies_of_immich(request.headers.get_all("cookie")))
    key = hashlib.blake2b("\n".join([*credentials, query]).encode("utf-8", "surrogateescape"), key=_SALT)
    by_link = any(name in OF_SHARED_LINKS for name, _ in parse_qsl(query, keep_blank_values=True)) or any(
        name in request.headers for name in CREDENTIALS if name.startswith("x-immich-share-")
    )
    return Caller(headers, query, key.digest(), by_link)


def _cookies_of_immich(headers: Iterable[str]) -> list[str]:
    """Return Immich's own cookies: those of others on the same host may change from page to page."""
    cookies = [cookie.strip() for header in headers for cookie in header.split(";")]
    return [cookie for cookie in cookies if cookie.startswith("immich_")]
