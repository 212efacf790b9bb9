"""A server that gives one recorded answer as our gateway gives one of Triton's, and says who answered."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BY_TRITON = "total;dur=3.0, wait;dur=0.0, triton;dur=2.0, gateway;dur=1.0"
FELL_BACK = 'total;dur=3.0, wait;dur=0.0, triton;dur=0.0, upstream;dur=2.0, fallback;desc="ocr"'
FAILED_TO_FALL_BACK = "total;dur=5.0, wait;dur=0.0, triton;dur=2.0, upstream;dur=2.0, gateway;dur=1.0"


@dataclass
class CannedGateway:
    """Set the fields at any time. ``timing`` is its Server-Timing, empty for what passes through."""

    url: str = ""
    answer: tuple[int, bytes] = (200, b"{}")
    timing: Callable[[int], str] = lambda _number: BY_TRITON
    bodies: list[bytes] = field(default_factory=list)
    before_answering: Callable[[int], None] = lambda _number: None
    task: str = "ocr"
    counted: Counter[str] = field(default_factory=Counter)
    """Its requests with a photo for ``task``, by outcome, as ``/metrics`` tells them."""
    began: float = 1.0

    def metrics(self) -> str:
        """Return what Prometheus reads, in part."""
        name = "immich_gateway_requests_total"
        rows = [
            f'{name}{{task="{self.task}",input="image",route="triton",outcome="{outcome}",reason="x"}} {count}'
            for outcome, count in ({"server_error": 0} | self.counted).items()
        ]
        other = f'{name}{{task="other",input="text",route="triton",outcome="ok",reason="ok"}} 7.0'
        return "\n".join([f"# TYPE {name} counter", *rows, other, f"process_start_time_seconds {self.began}", ""])


@contextmanager
def canned_gateway() -> Iterator[CannedGateway]:
    """Run the server on a free port; requests are numbered from 1."""
    gateway = CannedGateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, gateway.metrics().encode() if self.path == "/metrics" else b"pong", "")

        def do_POST(self) -> None:
            gateway.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            number = len(gateway.bodies)
            gateway.before_answering(number)
            gateway.counted["ok" if gateway.answer[0] == 200 else "server_error"] += 1
            with contextlib.suppress(ConnectionError):  # who asked may be gone
                self._send(*gateway.answer, gateway.timing(number))

        def _send(self, status: int, content: bytes, timing: str) -> None:
            self.send_response(status)
            if timing:
                self.send_header("Server-Timing", timing)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        gateway.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield gateway
        finally:
            http.shutdown()
            thread.join()
