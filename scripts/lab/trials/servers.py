"""What stands around the gateway in a trial: a stock ML that counts and misbehaves, and Immich's job queues."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class StockMl:
    """The upstream. ``clip`` counts what must never come: CLIP requests. ``mood`` is how it treats all others."""

    url: str = ""
    mood: str = "well"
    requests: int = 0
    clip: int = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Answer, or reset or hang, by mood."""
        body = await request.read()
        self.requests += 1
        self.clip += b'"clip"' in body
        if self.mood == "hanging":
            await asyncio.sleep(3600)
        if self.mood == "resetting" and request.transport:
            request.transport.abort()
        return web.json_response({"from": "the stock ML"})


@dataclass
class JobQueues:
    """The part of Immich's API that starts job queues."""

    url: str = ""
    started: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """Take note of the queue."""
        command = await request.json()
        asked = f"{request.method} {request.path.rsplit('/', 1)[1]} force={command.get('force')}"
        self.started.append(asked)
        return web.json_response({})


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def serving(handle: Handler, *, keep_alive: float = 75.0, port: int = 0) -> Iterator[str]:
    """Serve every path with *handle* in a thread while the block lasts; give the address."""
    loop, ready, addresses = asyncio.new_event_loop(), threading.Event(), list[str]()
    stop = asyncio.Event()

    async def run() -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(
            application, access_log=None, keepalive_timeout=keep_alive, shutdown_timeout=0.1, handle_signals=False
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        addresses.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await stop.wait()
        await runner.cleanup()
        hanging = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("a server of the trial did not start")
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
