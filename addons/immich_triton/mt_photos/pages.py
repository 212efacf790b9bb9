"""Addon: answers what needs no model: the page, the check of address and key, the restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mitmproxy.http import Response

from immich_triton import __version__
from immich_triton.mt_photos.claim import PAGES, path_of
from immich_triton.mt_photos.protocol import TITLE
from immich_triton.proxy.answers import json_response
from immich_triton.proxy.flow_kind import kind_of

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.mt_photos.service import Service

PAGE: Final = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>immich-triton</title></head>
<body><h1>immich-triton {__version__}</h1>
<p>mt-photos-ai's API is running. In MT-Photos enter this address and the key (api-key).</p>
<p>服务运行中。请在 MT-Photos 中填写此地址和 api-key。</p></body></html>
"""

CHECK: Final = {"result": "pass", "title": TITLE, "help": "docs/mt-photos.md", "version": __version__}

RESTART: Final = {"result": "pass"}
"""The old service freed its memory by starting anew; here there is nothing to free, and others ask the same Triton."""


class Pages:
    """Before the gateway, which leaves alone what is answered."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def request(self, flow: HTTPFlow) -> None:
        """Answer a request that is about no picture."""
        path = path_of(flow.request)
        if kind_of(flow, self._service.id) != "predict" or path not in PAGES or flow.response or flow.error:
            return
        if path == "/":
            flow.response = Response.make(200, PAGE, {"content-type": "text/html; charset=utf-8"})
        else:
            flow.response = json_response(200, CHECK if path == "/check" else RESTART)
