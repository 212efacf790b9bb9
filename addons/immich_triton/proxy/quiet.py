"""Addon: leaves out of the log what mitmproxy says of every connection, and of every answer that it streams."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, override

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

ORDINARY: Final = (
    "client connect",
    "client disconnect",
    "server connect ",
    "server disconnect ",
    "Streaming request to ",
    "Streaming response from ",
)
"""How these lines begin, behind the address of the client."""


class Quiet:
    """A library is thousands of photos, a page of it a hundred; lines for each connection would hide what matters.

    ``--set termlog_verbosity=debug`` shows them.
    """

    def __init__(self) -> None:
        self._filter = _OrdinaryIsDebug()

    def load(self, _loader: Loader) -> None:
        """Look at the lines about connections."""
        _logger().addFilter(self._filter)

    def done(self) -> None:
        """Leave mitmproxy's logger as it was."""
        _logger().removeFilter(self._filter)


class _OrdinaryIsDebug(logging.Filter):
    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno == logging.INFO and record.getMessage().startswith(ORDINARY):
            record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return True


def _logger() -> logging.Logger:
    return logging.getLogger("mitmproxy.proxy.server")
