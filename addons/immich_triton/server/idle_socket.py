"""Where the gateway tells the supervisor which route is asked for, and asks which models are asleep."""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import threading
import time
from pathlib import Path
from typing import Final

from immich_triton.core.model_states import LONGEST, NAME, address
from immich_triton.server.idle import Idle

LOOK_SECONDS: Final = 1.0
QUESTION_SECONDS: Final = 5.0


class IdleSocket:
    """Answers at a socket in *run_dir* from `open` to `close`. Call `poll` several times a second."""

    def __init__(self, run_dir: Path, idle: Idle) -> None:
        self.path = run_dir / NAME
        self._idle = idle
        self._server: _Server | None = None
        self._next = 0.0

    def open(self) -> None:
        """Begin to answer. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # of a supervisor that was killed; another one that runs holds the lock
        with address(self.path) as place:
            self._server = _Server(place, self._idle)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="idle socket", daemon=True).start()

    def poll(self) -> None:
        """Open it again when the run directory was removed meanwhile, as by `make clean`: who sleeps could not wake."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            if self._server is not None and not self.path.exists():
                self.close()
                with contextlib.suppress(OSError):  # at the next look
                    self.open()

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self.path.unlink(missing_ok=True)
            self._server = None


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, place: str, idle: Idle) -> None:
        self.idle = idle
        super().__init__(place, _Handler)

    def server_bind(self) -> None:
        before = os.umask(0o177)  # whoever may write to it keeps models awake
        try:
            super().server_bind()
        finally:
            os.umask(before)


class _Handler(socketserver.StreamRequestHandler):
    timeout = QUESTION_SECONDS
    server: _Server

    def handle(self) -> None:
        """Answer one question; whatever else comes is not answered."""
        with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
            if route := json.loads(self.rfile.readline(LONGEST)).get("use"):
                self.server.idle.use(str(route))
            self.wfile.write(self.server.idle.states().encode())
