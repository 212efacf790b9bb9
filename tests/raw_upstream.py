"""An upstream for tests that answers with exactly the bytes it is told, and keeps those it got."""

from __future__ import annotations

import re
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase

PAUSE = 0.05
"""Seconds between two pieces of an answer, so that they do not arrive as one."""


@dataclass
class RawUpstream:
    """``answer`` is sent piece by piece once a request is complete; ``seen`` are the requests."""

    url: str = ""
    answer: Sequence[bytes] = ()
    seen: list[bytes] = field(default_factory=list)

    def serve(self, connection: socketserver.StreamRequestHandler) -> None:
        """Answer requests until the client hangs up."""
        while request := read_request(connection.rfile):
            self.seen.append(request)
            for piece in self.answer:
                connection.wfile.write(piece)
                time.sleep(PAUSE)


def read_request(stream: BufferedIOBase) -> bytes:
    """Read one request with its body, which has a length or is chunked; nothing at the end."""
    request = b"".join(_lines_up_to(stream, b"\r\n"))
    if length := re.search(rb"\r\ncontent-length: ([0-9]+)", request, re.IGNORECASE):
        request += stream.read(int(length[1]))
    elif re.search(rb"\r\ntransfer-encoding: chunked", request, re.IGNORECASE):
        request += b"".join(_lines_up_to(stream, b"0\r\n")) + b"".join(_lines_up_to(stream, b"\r\n"))
    return request


def _lines_up_to(stream: BufferedIOBase, last: bytes) -> Iterator[bytes]:
    while line := stream.readline():
        yield line
        if line == last:
            return


@contextmanager
def raw_upstream() -> Iterator[RawUpstream]:
    """Run one in threads while the block lasts."""
    upstream = RawUpstream()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            upstream.serve(self)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        upstream.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield upstream
        finally:
            server.shutdown()
            thread.join(10)
