"""The one place that touches mitmproxy's private connection handler.

mitmproxy has no public hook for three things: to answer before a body arrives (a response set in ``requestheaders``
still buffers the whole body), to word the error of an unreachable upstream, and to use a fresh upstream connection for
each request. All three go through ``proxyserver.connections[client.id]``; tests/test_wire.py is the contract with the
pinned version.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.net.http import http1

from immich_triton.notes import note_written

if TYPE_CHECKING:
    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow, Response
    from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

LINGER = 0.5
"""Seconds between an early answer and the end of the connection, for a client that is still sending to read it."""


def _handler(client: Client) -> ProxyConnectionHandler | None:
    handler: ProxyConnectionHandler | None = ctx.master.addons.get("proxyserver").connections.get(client.id)
    return handler


def close_upstream(client: Client) -> None:
    """Close the idle upstream connections of a client, so that its next request opens a fresh one.

    Stock ML closes idle connections after 2 s: a request sent at that moment is lost, and a streamed one cannot be
    sent again. A fresh connection costs well under a millisecond on the same host.
    """
    handler = _handler(client)
    if handler is None:
        return
    for connection in list(handler.transports):
        if connection is not client:
            handler.close_connection(connection)


async def answer_at_once(flow: HTTPFlow, response: Response) -> None:
    """Answer in ``requestheaders`` without reading the body, and end the connection."""
    if _write(flow, response, close=False):
        await asyncio.sleep(LINGER)
    flow.kill()


def answer_instead_of_error(flow: HTTPFlow, response: Response) -> None:
    """Answer in ``error`` with our own words instead of mitmproxy's page; the connection ends, as it does anyway."""
    _write(flow, response, close=True)


def _write(flow: HTTPFlow, response: Response, *, close: bool) -> bool:
    handler = _handler(flow.client_conn)
    transport = handler.transports.get(flow.client_conn) if handler else None
    writer = transport.writer if transport else None
    if not isinstance(writer, asyncio.StreamWriter) or writer.is_closing():
        return False
    note_written(flow, response)
    response.headers["connection"] = "close"
    head = http1.assemble_response_head(response)
    writer.write(head if flow.request.method == "HEAD" else head + (response.raw_content or b""))
    if close:
        writer.close()
    else:
        # What the client still sends stays in its socket: memory stays flat.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    return True
