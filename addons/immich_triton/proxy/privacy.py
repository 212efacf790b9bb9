"""Addon: keeps content out of what mitmproxy itself says about broken requests.

A client that miscounts its body makes mitmproxy take a part of it, a query or an image, for the next request; mitmproxy
then quotes it, in its log and in the flow's error.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, override

from immich_triton.core.redaction import without_bytes
from immich_triton.proxy.auth import HIDDEN
from immich_triton.proxy.flow_kind import kind_of

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader
    from mitmproxy.http import HTTPFlow

    from immich_triton.core.app import App


LONGEST: Final = 16 * 1024
"""Characters of a text that are filtered and kept, room for a traceback: the filter takes 155 bytes of memory for each
character that it drops, and what mitmproxy quotes is as long as a peer wants."""


class Privacy:
    """Before every addon that writes an error down; mitmdump's own comes after the script's."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._filter = _WithoutBytes()

    def load(self, _loader: Loader) -> None:
        """Look at the lines about connections."""
        _logger().addFilter(self._filter)

    def done(self) -> None:
        """Leave mitmproxy's logger as it was."""
        _logger().removeFilter(self._filter)

    def error(self, flow: HTTPFlow) -> None:
        """Take the bytes out of the reason, and the path, with the token in it, out of a request nobody looked at."""
        if flow.error:
            flow.error.msg = without_bytes(flow.error.msg[:LONGEST])
        if flow.live and kind_of(flow, self._app.id) is None:
            flow.request.path = HIDDEN


class _WithoutBytes(logging.Filter):
    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Change the text where need be; every record stays."""
        text = record.getMessage()
        if (shorter := without_bytes(text[:LONGEST])) != text:
            record.msg, record.args = shorter, None
        return True


def _logger() -> logging.Logger:
    return logging.getLogger("mitmproxy.proxy.server")
