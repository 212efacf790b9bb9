"""An upstream for tests: a real HTTP server that records what reaches it, byte for byte."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web
from aiohttp.web_runner import GracefulExit


@dataclass
class Seen:
    """One request as it arrived: request target, headers in order, size and SHA-256 of the body."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    size: int
    sha256: str
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Recorder:
    """The upstream; ``seen`` grows with every request. Bodies over 1 MB are only hashed."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answer: tuple[int, bytes] = (200, b'{"from":"upstream"}')

    def predictions(self) -> list[Seen]:
        """Return the ``/predict`` requests, however the path was spelt."""
        return [request for request in self.seen if "redict" in request.target]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record and answer; ``/ws`` echoes frames, ``/download/N`` sends N MiB, ``/chunked`` sends three chunks."""
        digest, size, body = hashlib.sha256(), 0, b""
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
            body = body + chunk if size <= 1_000_000 else b""
        headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in request.raw_headers]
        self.seen.append(Seen(request.method, request.raw_path, headers, size, digest.hexdigest(), body))
        if request.path == "/ws":
            return await self._websocket(request)
        if request.path.startswith("/download/"):
            return await self._stream(request, [b"\0" * (1 << 20)] * int(request.path.rsplit("/", 1)[1]))
        if request.path == "/chunked":
            return await self._stream(request, [b"one,", b"two,", b"three"])
        status, content = self.answer
        return web.Response(status=status, body=content, content_type="application/json", headers={"x-up": "yes"})

    @staticmethod
    async def _websocket(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    @staticmethod
    async def _stream(request: web.Request, chunks: list[bytes]) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
        return response


@contextmanager
def recording_upstream(*, keepalive: float = 75.0) -> Iterator[Recorder]:
    """Run a recorder in a thread; it closes idle connections after *keepalive* seconds (stock ML: 2)."""
    recorder = Recorder()
    started = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 40)
        app.router.add_route("*", "/{tail:.*}", recorder.handle)
        runner = web.AppRunner(app, keepalive_timeout=keepalive, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        recorder.url = f"http://127.0.0.1:{port}"
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except (asyncio.CancelledError, GracefulExit):
            pass
        finally:
            loop.close()

    task = loop.create_task(serve())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not started.wait(10):
        raise AssertionError("the recording upstream did not start")
    try:
        yield recorder
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
