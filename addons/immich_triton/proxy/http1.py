"""What mitmproxy's HTTP/1 does not understand: trailers and interim responses. Its private parts again, as in `wire`.

mitmproxy 12.2 raises at a chunked body with trailer fields, after which the connection hangs, and takes an interim
response (100 to 199, such as 103 Early Hints) for the answer itself, so that the real one is lost. A stock ML sends
neither; what stands before it, and other clients, may.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, override

import h11
from h11._readers import ChunkedReader
from mitmproxy.net.http import http1
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client

if TYPE_CHECKING:
    from h11._receivebuffer import ReceiveBuffer
    from mitmproxy.proxy.layer import CommandGenerator

LONGEST: Final = 64 * 1024
"""Bytes that the line before a chunk may have, and all trailer fields together."""

MOST_INTERIM: Final = 16
"""Interim responses before an answer. Each is a sign of life: an endless row of them would hold a request for ever."""

_INTERIM: Final = re.compile(rb"HTTP/1\.[01] +1(?!01)\d\d[ \r\n]")
"""How an interim response begins; 101 is an answer: what follows is no HTTP."""

_read_answer_head: Final = Http1Client.read_headers


def install() -> None:
    """Add to mitmproxy what it lacks; once more does nothing. It stays when the script is unloaded."""
    _http1.ChunkedReader = ChunkedBody  # type: ignore[attr-defined]
    Http1Client.read_headers = read_answer_head  # type: ignore[method-assign]


class ChunkedBody(ChunkedReader):
    """Reads a chunked body, drops its trailer fields, and bounds what has no length.

    A proxy may drop trailers (RFC 9110, 6.5.1), and neither Immich nor its ML looks at any. Passed on, they would have
    to be judged one by one: whoever merges a field like Content-Length into the headers reads another request.
    """

    @override
    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """Return the next part of the body, or None when *buf* holds none yet. Raises ``h11.ProtocolError``."""
        event = super().__call__(buf)
        if isinstance(event, h11.EndOfMessage):
            return h11.EndOfMessage()
        if event is None and len(buf) > LONGEST:
            raise h11.LocalProtocolError(f"a chunk's header or the trailers are larger than {LONGEST} bytes")
        return event


def read_answer_head(self: Http1Client, event: events.ConnectionEvent) -> CommandGenerator[None]:
    """Pass interim responses on to the client, then let mitmproxy read the head of the answer."""
    if isinstance(event, events.DataReceived) and self.request and self.stream_id is not None:
        while _INTERIM.match(bytes(self.buf)[:16]):
            if (lines := self.buf.maybe_extract_lines()) is None:
                return  # its end has not arrived
            try:
                head = _checked(self, [bytes(line) for line in lines])
            except ValueError as error:
                yield commands.CloseConnection(self.conn)
                text = f"Cannot parse HTTP response: {error}"
                code = ErrorCode.GENERIC_SERVER_ERROR
                yield ReceiveHttp(ResponseProtocolError(self.stream_id, text, code))
                return
            # HTTP/1.0 knows none.
            if self.request.http_version != "HTTP/1.0":
                yield commands.SendData(self.context.client, head)
    yield from _read_answer_head(self, event)


def _checked(connection: Http1Client, lines: list[bytes]) -> bytes:
    """Return the head of an interim response as it goes to the client. Raises ValueError."""
    seen = getattr(connection, "_immich_interim", 0) + 1
    connection._immich_interim = seen  # type: ignore[attr-defined]
    if seen > MOST_INTERIM:
        raise ValueError(f"more than {MOST_INTERIM} interim responses")
    response = http1.read_response_head(lines)
    validate_headers(response)
    head: bytes = http1.assemble_response_head(response)
    return head
