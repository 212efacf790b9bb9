"""The one place that touches mitmproxy's private connection handler.

mitmproxy has no public hook for four things: to answer before a body arrives (a response set in ``requestheaders``
still buffers the whole body), to word the error of an unreachable upstream, to use a fresh upstream connection for each
request, and to bound what a slow or a greedy client may do. All go through ``proxyserver.connections[client.id]``;
tests/process/test_wire.py is the contract with the pinned version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from mitmproxy import ctx
from mitmproxy.net.http import http1
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.http._http1 import Http1Connection
from mitmproxy.proxy.layers.tls import ClientTLSLayer
from OpenSSL import SSL

from immich_triton.core import flow_state
from immich_triton.core.request_id import stamp
from immich_triton.proxy.answers import detail_of

if TYPE_CHECKING:
    from mitmproxy.connection import Client, Connection
    from mitmproxy.http import HTTPFlow, Response
    from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

PROVEN: Final = "12.2"
"""The minor version of mitmproxy with which all that is private here and in `http1` was proven."""

LINGER = 0.5
"""Seconds between an early answer and the end of the connection, for a client that is still sending to read it."""


FAREWELL = 10.0
"""Seconds that a closed connection may still take to send what is in our buffers."""


def check_version(version: str) -> None:
    """Raise ValueError for a *version* of mitmproxy that none of this was proven with."""
    if version.split(".")[:2] != PROVEN.split("."):
        raise ValueError(
            f"this is mitmproxy {version}, and immich-triton needs {PROVEN}: it relies on private parts, which another "
            f"version may have changed. Install that one (pip install 'mitmproxy=={PROVEN}.*'), or an immich-triton "
            "that knows yours"
        )


class Reader(Protocol):
    """What a connection handler reads from."""

    async def read(self, count: int, /) -> bytes:
        """Return up to *count* bytes, none at the end."""


class Tap:
    """Stands between a connection and its handler: sees how much arrives, and can hold it up."""

    def __init__(self, reader: Reader, seen: Callable[[int], None]) -> None:
        self._reader = reader
        self._seen = seen
        self._go = asyncio.Event()
        self._go.set()
        self.reading = False
        """Whether the handler waits for the peer; it does not while it cannot pass on what it has."""
        self.at_once = 0
        """Bytes that the handler gets at a time where so many have arrived, though it asks for fewer."""

    async def read(self, count: int, /) -> bytes:
        """Read for the handler. An OSError that *seen* raises ends the connection."""
        await self._go.wait()
        self.reading = True
        try:
            data = await self._reader.read(max(count, self.at_once))
        finally:
            self.reading = False
        if data:
            self._seen(len(data))
        return data

    def hold(self) -> None:
        """Read no further."""
        self._go.clear()

    def go_on(self) -> None:
        """Read again."""
        self._go.set()


def tap(client: Client, connection: Connection, seen: Callable[[int], None]) -> Tap | None:
    """Put a tap on *connection*, which belongs to *client*; only in ``client_connected`` and ``server_connected``."""
    handler = _handler(client)
    transport = handler.transports.get(connection) if handler else None
    if transport is None or transport.reader is None:
        return None
    transport.reader = wrapped = Tap(transport.reader, seen)  # type: ignore[assignment]
    return wrapped


def unparsed(client: Client, connection: Connection) -> int:
    """Return how many bytes from *connection*, which belongs to *client*, wait for the end of what they belong to.

    That is a head, or in a chunked body the line before a chunk and the trailers: mitmproxy keeps them without a bound.
    """
    handler = _handler(client)
    layers = handler.layer.context.layers if handler else []
    http = next((layer for layer in layers if isinstance(layer, HttpLayer)), None)
    reader: object = http.connections.get(connection) if http else None
    while reader is not None and not isinstance(reader, Http1Connection):
        reader = getattr(reader, "child_layer", None)
    return len(reader.buf) if reader is not None else 0


def client_ids() -> set[str]:
    """Return the ids of all client connections."""
    return {client_id for client_id in _connections() if isinstance(client_id, str)}


def unsent() -> bool:
    """Whether bytes for any client are still in our buffers."""
    transports = [handler.transports.get(handler.client) for handler in _connections().values()]
    writers = [transport.writer for transport in transports if transport]
    return any(
        isinstance(writer, asyncio.StreamWriter) and writer.transport.get_write_buffer_size() for writer in writers
    )


async def stop_listening() -> None:
    """Close the listening sockets; connections stay."""
    await ctx.master.addons.get("proxyserver").servers.update([])


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
    # mitmproxy keeps what it closed, and looks through all of it, as long as the client's connection lives.
    for layer in handler.layer.context.layers:
        if isinstance(layer, HttpLayer):
            gone = [one for one in layer.connections if one is not client and one not in handler.transports]
            for connection in gone:
                del layer.connections[connection]


def writer_of(client: Client) -> asyncio.StreamWriter | None:
    """Return what writes to a client, to be given to `hang_up` at its end; only in ``client_connected``."""
    return _writer(client)


def hang_up(writer: asyncio.StreamWriter | None) -> None:
    """Close the socket of a client that is gone, in ``client_disconnected``.

    mitmproxy 12.2 forgets to when a client half-closes after what is no HTTP: without this the descriptor is lost.
    A client that reads no more has `FAREWELL` seconds to take what is left.
    """
    if writer is None:
        return
    if not writer.is_closing():
        writer.close()
    if writer.transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(FAREWELL, writer.transport.abort)


def end(client: Client) -> None:
    """Close a client's connection; what was written to it is still sent."""
    handler = _handler(client)
    transport = handler.transports.get(client) if handler else None
    if transport and transport.handler:
        transport.handler.cancel("closed by the gateway")


async def answer_at_once(flow: HTTPFlow, response: Response) -> None:
    """Answer in ``requestheaders`` without reading the body, and end the connection."""
    if _answer(flow, response):
        writer = _writer(flow.client_conn)
        if writer:
            # What the client still sends stays in its socket: memory stays flat.
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(LINGER)
    flow.kill()


def answer_instead_of_error(flow: HTTPFlow, response: Response) -> None:
    """Answer in ``error`` with our own words instead of mitmproxy's page; the connection ends, as it does anyway."""
    writer = _writer(flow.client_conn)
    if _answer(flow, response) and writer:
        writer.close()


def answer_and_end(client: Client, flow: HTTPFlow | None, response: Response) -> None:
    """Answer a request that takes too long, known (*flow*) or not yet, at any time; the connection ends."""
    if flow is not None:
        _answer(flow, response)
    else:
        _write(client, response, head_only=False)
    end(client)


def _connections() -> dict[tuple[object, ...] | str, ProxyConnectionHandler]:
    connections: dict[tuple[object, ...] | str, ProxyConnectionHandler]
    connections = ctx.master.addons.get("proxyserver").connections
    return connections


def _handler(client: Client) -> ProxyConnectionHandler | None:
    return _connections().get(client.id)


def _writer(client: Client) -> asyncio.StreamWriter | None:
    handler = _handler(client)
    transport = handler.transports.get(client) if handler else None
    writer = transport.writer if transport else None
    return writer if isinstance(writer, asyncio.StreamWriter) and not writer.is_closing() else None


def _answer(flow: HTTPFlow, response: Response) -> bool:
    stamp(flow, response)
    if not _write(flow.client_conn, response, head_only=flow.request.method == "HEAD"):
        return False
    flow_state.WRITTEN.set(flow, f"{response.status_code} {detail_of(response)}".strip())
    return True


def _write(client: Client, response: Response, *, head_only: bool) -> bool:
    writer = _writer(client)
    if writer is None:
        return False
    response.headers["connection"] = "close"
    head = http1.assemble_response_head(response)
    data = _sealed(client, head if head_only else head + (response.raw_content or b""))
    if data:
        writer.write(data)
    return bool(data)


def _sealed(client: Client, data: bytes) -> bytes:
    """Return *data* as it goes over the wire: encrypted where the client speaks TLS, nothing before that is set up."""
    handler = _handler(client)
    layers = handler.layer.context.layers if handler else []
    tls = next((layer for layer in layers if isinstance(layer, ClientTLSLayer)), None)
    if tls is None:
        return data
    if not client.tls_established:
        return b""
    sealed = bytearray()
    try:
        tls.tls.sendall(data)
        while True:
            sealed += tls.tls.bio_read(65535)
    except SSL.WantReadError:
        return bytes(sealed)
    except SSL.Error:
        return b""
