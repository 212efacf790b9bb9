"""Addon: leaves out of the log what mitmproxy says of every single answer that it streams."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, override

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader


class Quiet:
    """A page of a photo site has a hundred pictures, and each would be a line at the level of information."""

    def __init__(self) -> None:
        self._filter = _WithoutStreaming()

    def load(self, _loader: Loader) -> None:
        """Look at the lines about connections."""
        _logger().addFilter(self._filter)

    def done(self) -> None:
        """Leave mitmproxy's logger as it was."""
        _logger().removeFilter(self._filter)


class _WithoutStreaming(logging.Filter):
    @override
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("Streaming request to ", "Streaming response from "))


def _logger() -> logging.Logger:
    return logging.getLogger("mitmproxy.proxy.server")
