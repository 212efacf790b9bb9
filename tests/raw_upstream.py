"""An upstream for tests that answers with exactly the bytes it is told, and keeps those it got."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

PAUSE = 0.05
"""Seconds between two pieces of an answer, so that they do not arrive as one."""


@dataclass
class RawUpstream:
    """``answer`` is sent piece by piece once a request is complete; ``seen`` are the requests."""

    url: str = ""
    answer: Sequence[bytes] = ()
    seen: list[bytes] = field(default_factory=list)

    def serve(self, handler: socketserver.StreamRequestHandler) -> None:
        """Answer one request, and wait for the client to hang up."""
        request = b""
        while line := handler.rfile.readline():
            request += line
            if line == b"\r\n" and is_complete(request):
                self.seen.append(request)
                for piece in self.answer:
                    handler.wfile.write(piece)
                    time.sleep(PAUSE)
                request = b""


def is_complete(request: bytes) -> bool:
    """Tell whether a request that ends with an empty line is whole: its body, if it has one, is chunked."""
    head, _, body = request.partition(b"\r\n\r\n")
    return b"chunked" not in head.lower() or b"\r\n0\r\n" in b"\r\n" + body


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
