"""Addon: lets in what mt-photos-ai answers and who has the key. Nothing ever goes upstream: there is none."""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING, Final

from immich_triton.core import flow_state
from immich_triton.core.loopback import is_loopback
from immich_triton.mt_photos.protocol import KEY_MISSING
from immich_triton.mt_photos.settings import WELL_KNOWN_KEY
from immich_triton.proxy import wire
from immich_triton.proxy.answers import error_response
from immich_triton.proxy.auth import listen_hosts
from immich_triton.proxy.flow_kind import set_kind
from immich_triton.proxy.passthrough import normalise
from immich_triton.proxy.targets import fold_path

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request

    from immich_triton.mt_photos.service import Service

logger = logging.getLogger(__name__)

PREDICTIONS: Final = {
    "/ocr": "ocr",
    "/ocr/rec": "ocr",
    "/clip/img": "visual",
    "/clip/txt": "textual",
    "/face/represent": "faces",
    "/represent": "faces",
}
"""What is asked of a model, by its path: both generations of mt-photos-ai, and the service for faces beside it."""

PAGES: Final = {"/": "GET", "/check": "POST", "/restart": "POST", "/restart_v2": "POST", "/ping": "GET"}
"""Everything else, with its method. ``/ping`` is ours, for who looks after this process."""


class Claim:
    """Before the addons that read a body: who has no key uploads nothing."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def running(self) -> None:
        """Warn when anybody on the network may ask."""
        beyond = [host for host in listen_hosts() if not is_loopback(host)]
        if beyond and not self._service.settings.key:
            logger.warning(
                "everybody who reaches %s can ask: %s is a key that everybody knows. Choose another one "
                "(mt_photos_key, immich-triton run --mt-photos-key), and set it in MT-Photos too",
                ", ".join(beyond),
                WELL_KNOWN_KEY,
            )

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """Claim a request, or refuse it unread."""
        if flow.error:
            return
        flow_state.forget(flow)
        normalise(flow)
        status, detail = self._refusal(flow.request)
        if not status:
            set_kind(flow, self._service.id, "ping" if path_of(flow.request) == "/ping" else "predict")
            return
        set_kind(flow, self._service.id, "refused")
        if status not in (404, 405):
            self._service.observers.refused("no_token", status)
        await wire.answer_at_once(flow, error_response(status, detail))

    def _refusal(self, request: Request) -> tuple[int, object]:
        """Return status and detail, as FastAPI gives them; status 0 where a request is let in."""
        method = PAGES.get(path_of(request), "POST" if path_of(request) in PREDICTIONS else "")
        if not method:
            return 404, "Not Found"
        if request.method != method:
            return 405, "Method Not Allowed"
        if method == "GET":
            return 0, None
        key = request.headers.get("api-key")
        if key is None:
            return 422, KEY_MISSING
        expected = self._service.settings.key or WELL_KNOWN_KEY
        # Constant time, also when the lengths differ.
        if not hmac.compare_digest(key.encode("utf-8", "surrogateescape"), expected.encode()):
            return 401, "Invalid API key"
        return 0, None


def path_of(request: Request) -> str:
    """Return the path by which `PREDICTIONS` and `PAGES` know a request."""
    return fold_path(request.path)
