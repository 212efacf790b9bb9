"""An Immich that is asked to run what is missing, and the addon that asks it, without waiting times."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from gateway_process import kept
from mitmproxy.test import taddons
from stand_in_triton import StandInTriton, write_routes

from immich_triton.core.observer import Reason, RequestDone
from immich_triton.ml.catchup import CatchUp, Pauses
from immich_triton.ml.configuration import Configuration
from immich_triton.ml.outages import Outages
from immich_triton.ml.service import Service

KEY = "the-api-key"
STARTED = (200, '{"jobCounts":{}}')
BUSY = (400, '{"message":"Job is already running","error":"Bad Request","statusCode":400}')


@dataclass
class Immich:
    """The part of Immich's API that is asked; the observed answers of a 2.7.5."""

    url: str = ""
    answers: list[tuple[int, str]] = field(default_factory=lambda: [STARTED])
    asked: list[tuple[str, str, object]] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    """What happens before it answers."""

    @property
    def queues(self) -> list[str]:
        """The queues that were to be started, in order."""
        return [path.rsplit("/", 1)[1] for _, path, _ in self.asked]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer, and keep what was asked."""
        self.asked.append((request.method, request.path, await request.json() if request.can_read_body else None))
        assert request.headers["x-api-key"] == KEY
        self.meanwhile()
        status, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        headers = {"Location": text} if status == 302 else {}
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")


@asynccontextmanager
async def serving(immich: Immich) -> AsyncIterator[Immich]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", immich.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    immich.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield immich
    finally:
        await runner.cleanup()


@contextmanager
def immich_server() -> Iterator[Immich]:
    immich, loop, started, stop = Immich(), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def run() -> None:
        async with serving(immich):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield immich
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def routes(directory: Path) -> Path:
    """Return the routes there, written where there are none yet."""
    models = directory / "models"
    return models if models.exists() else write_routes(models)


@asynccontextmanager
async def attending(
    triton: StandInTriton, tmp_path: Path, **options: object
) -> AsyncIterator[tuple[Service, CatchUp, Outages]]:
    """Give the addon without waiting times, inside a mitmproxy."""
    service = Service()
    configuration = Configuration(service)
    with taddons.context() as context:
        context.options.update(mode=["reverse:http://127.0.0.1:9"])
        context.master.addons.add(configuration)
        context.configure(
            configuration,
            immich_models=str(routes(tmp_path)),
            immich_state_dir=str(tmp_path / "state"),
            immich_triton_url=triton.url,
            **options,
        )
        yield service, CatchUp(service, Pauses(settle=0, busy=0, failed=0)), Outages(tmp_path / "state")
        service.close()
        closing = [task for task in asyncio.all_tasks() if task.get_name() == "close a client of Triton"]
        await asyncio.gather(*closing)


def access(immich: Immich, directory: Path) -> dict[str, str]:
    """Return the options by which the gateway may ask Immich."""
    return {"immich_api_url": immich.url, "immich_api_key": kept(directory, KEY)}


async def attend_until(catch_up: CatchUp, condition: Callable[[], bool]) -> bool:
    """Look after outages until *condition* holds: Triton may take too long to say that it is well."""
    for _ in range(20):
        await catch_up.attend()
        if condition():
            return True
    return False


def lose(
    service: Service,
    *tasks: str,
    status: int = 503,
    reason: Reason = "unavailable",
    image: bool = True,
    seconds: float = 1.0,
) -> None:
    """Have a request fail now that was sent so many seconds ago."""
    service.observers.request_done(RequestDone(tasks, "triton", image, status, reason, seconds))


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Return the lines of the log in which the regular expression is found."""
    return [line for record in caplog.records if re.search(text, line := record.getMessage())]
