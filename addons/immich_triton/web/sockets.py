"""Addon: keeps the memory flat under WebSockets that stay open for days."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow


class Sockets:
    """mitmproxy keeps every message of a WebSocket as long as it is open; the web app's is open as long as its tab."""

    def websocket_message(self, flow: HTTPFlow) -> None:
        """Forget all messages but the last, which mitmproxy is about to send."""
        if flow.websocket:
            del flow.websocket.messages[:-1]
