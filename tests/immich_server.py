"""An HTTP server that plays Immich's part in the calls that `reindex.py` and `doctor.py` make.

Immich itself (with its database) cannot be installed where the tests run. The answers have the shape of a real 2.7.5
server's; the queue moves on by itself, one step each time it is looked at.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

KEY: Final = "an-api-key-of-an-administrator"
PERMISSIONS: Final = {"adminConfig.read", "systemConfig.read", "server.statistics", "job.read", "job.create"}
QUEUES: Final = ("smartSearch", "ocr", "faceDetection")


@dataclass
class Immich:
    """Its settings and its queues; ``started`` are the bodies that started one, ``queue`` is the one that runs."""

    url: str = ""
    version: tuple[int, int, int] = (2, 7, 5)
    queue: str = "smartSearch"
    urls: list[str] = field(default_factory=list)
    clip_name: str = "ViT-B-16__openai"
    faces_name: str = "buffalo_l"
    ocr_name: str = "PP-OCRv5_mobile"
    enabled: bool = True
    photos: int = 40
    videos: int = 2
    paused: bool = False
    counts: list[int] = field(default_factory=list)
    """Jobs left, each time the queue is looked at; the last one stays."""
    after_start: list[int] = field(default_factory=lambda: [1, 30, 42, 20, 5, 0])
    hiccups: int = 0
    """How many of the next looks at the queue get a 502, as from a proxy in front of an Immich that restarts."""
    permissions: set[str] = field(default_factory=lambda: set(PERMISSIONS))
    started: list[dict[str, Any]] = field(default_factory=list)
    on_start: Callable[[], None] = lambda: None
    """What happens while the queue runs, such as that Immich asks the gateway about its photos."""
    requests: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, key: str | None, body: bytes) -> tuple[HTTPStatus, Any]:
        """Answer a request as Immich does; the order of its checks is: login, permission, content."""
        self.requests.append(f"{method} {path}")
        if (method, path) == ("GET", "/api/server/version"):
            return HTTPStatus.OK, dict(zip(("major", "minor", "patch"), self.version, strict=True))
        routes: dict[tuple[str, str], tuple[str, Callable[[], tuple[HTTPStatus, Any]]]] = {
            ("GET", "/api/system-config"): ("systemConfig.read", self._settings),
            ("GET", "/api/server/statistics"): ("server.statistics", self._statistics),
            ("GET", "/api/jobs"): ("job.read", self._jobs),
            **{("PUT", f"/api/jobs/{queue}"): ("job.create", partial(self._start, queue, body)) for queue in QUEUES},
        }
        if self.version >= (3, 2, 0):
            routes["GET", "/api/admin/config"] = ("adminConfig.read", self._settings)
        if self.version >= (4, 0, 0):
            del routes["GET", "/api/system-config"]
        if (method, path) not in routes:
            return HTTPStatus.NOT_FOUND, error(404, f"Cannot {method} {path}", "Not Found")
        if key != KEY:
            return HTTPStatus.UNAUTHORIZED, error(401, "Invalid API key", "Unauthorized")
        permission, handle = routes[method, path]
        if permission not in self.permissions:
            return HTTPStatus.FORBIDDEN, error(403, f"Missing required permission: {permission}", "Forbidden")
        return handle()

    def _settings(self) -> tuple[HTTPStatus, Any]:
        tasks = {
            "clip": {"enabled": bool(self.clip_name), "modelName": self.clip_name},
            "facialRecognition": {"enabled": bool(self.faces_name), "modelName": self.faces_name, "minScore": 0.7},
            "ocr": {"enabled": bool(self.ocr_name), "modelName": self.ocr_name, "maxResolution": 736},
        }
        return HTTPStatus.OK, {"machineLearning": {"enabled": self.enabled, "urls": self.urls, **tasks}}

    def _statistics(self) -> tuple[HTTPStatus, Any]:
        return HTTPStatus.OK, {"photos": self.photos, "videos": self.videos, "usage": 1, "usageByUser": []}

    def _jobs(self) -> tuple[HTTPStatus, Any]:
        if self.started and self.hiccups:
            self.hiccups -= 1
            return HTTPStatus.BAD_GATEWAY, error(502, "Bad Gateway", "Bad Gateway")
        left = self.counts.pop(0) if len(self.counts) > 1 else sum(self.counts)
        return HTTPStatus.OK, {queue: self._queue(left if queue == self.queue else 0) for queue in QUEUES}

    def _queue(self, left: int) -> dict[str, Any]:
        active = 0 if self.paused else min(left, 2)
        counts = {"active": active, "completed": 0, "failed": 0, "delayed": 0, "waiting": 0, "paused": 0}
        counts["paused" if self.paused else "waiting"] = left - active
        return {"jobCounts": counts, "queueStatus": {"isActive": active > 0, "isPaused": self.paused}}

    def _start(self, queue: str, body: bytes) -> tuple[HTTPStatus, Any]:
        if sum(self.counts[:1]):
            return HTTPStatus.BAD_REQUEST, error(400, "Job is already running", "Bad Request")
        self.queue = queue
        self.started.append(json.loads(body))
        self.on_start()
        self.counts = list(self.after_start)
        return HTTPStatus.OK, self._queue(self.counts[0])


def error(status: int, message: str, kind: str) -> dict[str, Any]:
    """Return the body of an error as NestJS writes it."""
    return {"message": message, "error": kind, "statusCode": status, "correlationId": "x"}


@contextmanager
def running_immich(**settings: Any) -> Iterator[Immich]:
    """Run the server on a free port."""
    immich = Immich(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = re.sub(r"\?.*", "", self.path)
            status, answer = immich.answer(self.command, path, self.headers.get("x-api-key"), body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = _handle  # noqa: N815 - http.server's names

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        immich.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield immich
        finally:
            http.shutdown()
            thread.join()
