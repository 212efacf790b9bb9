"""The web app's page with a script of ours in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

LARGEST: Final = 1 << 20
"""Bytes of a page that is looked at; Immich's has 6,600."""

_END: Final = b"</body>"
_OF_THE_APP: Final = b"/_app/immutable/"
"""Where the app's own scripts lie: what has none of them is another page."""

_ETAG: Final = re.compile(r'((?:W/)?"[^"]*)"')


def may_be_page(flow: HTTPFlow) -> bool:
    """Whether the head of an answer may be that of the app's page, so that its body has to be looked at."""
    request, response = flow.request, flow.response
    if response is None or request.method not in ("GET", "HEAD") or response.status_code != 200:
        return False
    length = response.headers.get("content-length", "0")
    return (
        not request.path.startswith(("/api/", "/_app/"))
        and response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html"
        and length.isdecimal()
        and int(length) <= LARGEST
    )


class Gathered:
    """Takes a body of unknown length chunk by chunk: one of up to `LARGEST` bytes is given to *change* as a whole.

    A longer one passes as it comes from there on. So whatever is sent, no more than that is held.
    """

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        self._change = change
        self._held = bytearray()
        self._passes = False

    def __call__(self, chunk: bytes) -> Iterable[bytes]:
        """Return what is to be sent now; an empty *chunk* is the end."""
        if self._passes:
            return [chunk] if chunk else []
        self._held += chunk
        if chunk and len(self._held) <= LARGEST:
            return []
        held = bytes(self._held)
        self._held.clear()
        if not chunk:
            return [changed] if (changed := self._change(held)) else []
        self._passes = True
        return [held]


def with_script(page: bytes, address: str) -> bytes | None:
    """Return *page* with the script at *address* at the end of its body; None when it is not the app's page.

    The script stands in a file: Immich's own Content-Security-Policy lets one of the same origin pass.
    """
    if page.count(_END) != 1 or _OF_THE_APP not in page:
        return None
    return page.replace(_END, f'<script src="{address}" defer></script>'.encode() + _END)


def etag_with(etag: str, version: str) -> str | None:
    """Return the *etag* of a page with the script *version* in it; None when it is no ETag.

    Immich never sees it as one of its own, and answers a question with it by the whole page.
    """
    found = _ETAG.fullmatch(etag.strip())
    return f'{found[1]}-{version}"' if found else None
