"""Addon: puts *Refresh OCR* and *Refresh CLIP* into the menus of Immich's web app, by a script that its page loads."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mitmproxy.http import Response
from mitmproxy.net.encoding import decode, encode

from immich_triton.immich.api import Answer
from immich_triton.web import injection, respond
from immich_triton.web.failopen import stock_instead
from immich_triton.web.site_notes import note
from immich_triton.web.small_json import has_body

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request

    from immich_triton.web.service import Service

SCRIPT: Final = Path(__file__).with_name("menu.js")

_ADDRESS: Final = re.compile(r"/immich-triton/menu\.[0-9a-f]+\.js")


class Menu:
    """Without a way to Immich's queues there is nothing to choose, so nothing is added either."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._script = SCRIPT.read_bytes()
        self._version = hashlib.sha256(self._script).hexdigest()[:12]
        self._address = f"/immich-triton/menu.{self._version}.js"

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Keep a request for the script, which is answered here."""
        try:
            if self._asks_for_script(flow.request):
                flow.request.stream = False
        except Exception as error:  # noqa: BLE001 - whatever it is, the request goes its way
            stock_instead("script", error, self._service.measurements)

    def request(self, flow: HTTPFlow) -> None:
        """Answer with the script."""
        if flow.request.stream or flow.response or flow.error:
            return
        try:
            if self._asks_for_script(flow.request):
                flow.response = self._answer(flow.request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request goes its way
            stock_instead("script", error, self._service.measurements)

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Keep what may be the app's page, and hold no more of it than such a page has."""
        try:
            if flow.response and flow.response.raw_content is None and self._is_on() and injection.may_be_page(flow):
                self._keep(flow, flow.response)
        except Exception as error:  # noqa: BLE001 - whatever it is, the page goes its way
            stock_instead("page", error, self._service.measurements)

    def _keep(self, flow: HTTPFlow, response: Response) -> None:
        if flow.request.method == "HEAD":
            # What they would be with the script is known only from the page: RFC 9110, 9.3.2 lets them be left out.
            for name in ("content-length", "etag"):
                response.headers.pop(name, None)
        elif "content-length" in response.headers:
            response.stream = False
        else:
            # Now or never: the head goes first. On another page it does no harm: Immich answers it by the whole page.
            self._change_etag(response)
            response.stream = injection.Gathered(lambda body: self._gathered(flow, response, body))

    def response(self, flow: HTTPFlow) -> None:
        """Put the script into the app's page."""
        if flow.response is None or flow.response.stream or flow.error or flow.request.method != "GET":
            return
        try:
            if self._is_on() and injection.may_be_page(flow):
                self._looked_at(flow, changed=self._add_script(flow.response))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page goes on as it is
            stock_instead("page", error, self._service.measurements)

    def _gathered(self, flow: HTTPFlow, response: Response, body: bytes) -> bytes:
        """Return a page that came without a length with the script in it, or as it is."""
        try:
            coding = response.headers.get("content-encoding", "identity")
            page = injection.with_script(_bytes(decode(body, coding)), self._address)
            self._looked_at(flow, changed=page is not None)
            return body if page is None else _bytes(encode(page, coding))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page goes on as it is
            stock_instead("page", error, self._service.measurements)
            return body

    def _looked_at(self, flow: HTTPFlow, *, changed: bool) -> None:
        self._service.measurements.looked_at_page(changed=changed)
        if changed:
            note(flow, "page of the web app: script of the menus added")

    def _is_on(self) -> bool:  # no property: mitmproxy reads every attribute of an addon before there are options
        settings = self._service.settings
        return settings.menu and bool(settings.redis_url)

    def _asks_for_script(self, request: Request) -> bool:
        return (
            request.method == "GET"
            and _ADDRESS.fullmatch(request.path) is not None
            and not has_body(request)
            and self._is_on()
        )

    def _answer(self, request: Request) -> Response:
        """Return the script, to be kept for ever under its own address; under that of another version only once."""
        current = request.path == self._address
        etag = f'W/"{self._version}"'  # weak: it is the same for the compressed one
        headers = {
            "Content-Type": "text/javascript; charset=utf-8",
            "Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if request.headers.get("if-none-match") == etag:
            unchanged = Response.make(304, b"", headers | {"ETag": etag})
            del unchanged.headers["content-length"]  # it would be that of the script: RFC 9110, 8.6
            return unchanged
        response = respond.as_sent(request, Answer(200, tuple(headers.items()), self._script))
        response.headers["ETag"] = etag
        return response

    def _add_script(self, response: Response) -> bool:
        """Change a page once all that can go wrong has gone well, and tell whether it is that of the app.

        Raises ValueError for a coding that nobody knows.
        """
        page = injection.with_script(response.get_content() or b"", self._address)
        if page is None:
            return False
        changed = response.copy()
        changed.content = page  # in the coding that it came in
        self._change_etag(changed)
        response.headers, response.raw_content = changed.headers, changed.raw_content
        return True

    def _change_etag(self, response: Response) -> None:
        etag = response.headers.pop("etag", None)
        if etag is not None and (ours := injection.etag_with(etag, self._version)) is not None:
            response.headers["etag"] = ours


def _bytes(content: str | bytes) -> bytes:
    if not isinstance(content, bytes):
        raise TypeError("a coding of text is none of a page")
    return content
