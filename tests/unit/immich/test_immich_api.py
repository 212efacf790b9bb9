"""Immich's API as an administrator's key may use it, and one exchange as everybody sends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from immich_server import KEY, running_immich

from harness.ports import free_ports
from immich_triton.immich.api import AlreadyRunning, Immich, ImmichError, QueueState, Unreachable, exchange, text_of


@pytest.mark.parametrize("end", ["", "/", "/api", "/api/"])
async def test_the_address_may_end_with_api_or_not(end: str) -> None:
    with running_immich() as server:
        assert await Immich(server.url + end, KEY).version() == "2.7.5"
        assert server.requests == ["GET /api/server/version"]


async def test_a_queue_is_started_once() -> None:
    with running_immich(after_start=[2, 3, 0]) as server:
        immich = Immich(server.url, KEY)
        await immich.start("clip", everything=False)
        assert server.started == [{"command": "start", "force": False}]
        assert await immich.queue("clip") == QueueState(active=2, waiting=0, paused=False)
        with pytest.raises(AlreadyRunning, match=r"/api/jobs/smartSearch: Immich answered 400: Job is already running"):
            await immich.start("clip", everything=False)


async def test_models_that_are_switched_off_are_not_told() -> None:
    with running_immich(ocr_name="") as server:
        assert (await Immich(server.url, KEY).ml_settings()).models == {
            "clip": "ViT-B-16__openai",
            "facial-recognition": "buffalo_l",
        }


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        ((2, 7, 5), ["/api/admin/config", "/api/system-config"]),
        ((3, 2, 0), ["/api/admin/config"]),
        ((4, 0, 0), ["/api/admin/config"]),
    ],
)
async def test_the_settings_are_asked_for_where_this_immich_has_them(
    version: tuple[int, int, int], asked: list[str]
) -> None:
    with running_immich(version=version, urls=["http://gateway:3004"]) as server:
        assert (await Immich(server.url, KEY).ml_settings()).urls == ("http://gateway:3004",)
        assert server.requests == [f"GET {path}" for path in asked]


@pytest.mark.parametrize(
    ("version", "permissions", "lacks"),
    [
        ((2, 7, 5), {"job.read"}, "systemConfig.read"),
        ((2, 7, 5), {"adminConfig.read"}, "systemConfig.read"),
        ((3, 2, 0), {"job.read"}, "adminConfig.read"),
        ((3, 2, 0), {"systemConfig.read"}, ""),
        ((3, 2, 0), {"adminConfig.read"}, ""),
        ((4, 0, 0), {"systemConfig.read"}, "adminConfig.read"),
    ],
)
async def test_the_permission_that_is_named_is_the_one_that_this_immich_wants(
    version: tuple[int, int, int], permissions: set[str], lacks: str
) -> None:
    with running_immich(version=version, permissions=permissions) as server:
        settings = Immich(server.url, KEY).ml_settings()
        if not lacks:
            assert (await settings).models["clip"]
            return
        with pytest.raises(ImmichError, match=f"with the permission {lacks}$") as refused:
            await settings
        assert refused.value.permission == lacks


async def test_settings_that_are_nowhere_are_no_question_of_permission() -> None:
    async with answering(nothing) as (_, url):
        with pytest.raises(ImmichError, match="/api/system-config: Immich answered 404") as missing:
            await Immich(url, KEY).ml_settings()
        assert missing.value.permission == ""


async def test_all_faces_are_found_again_without_the_loss_of_those_that_are_known() -> None:
    with running_immich() as server:
        immich = Immich(server.url, KEY)
        for task, everything in (("facial-recognition", True), ("facial-recognition", False), ("ocr", True)):
            server.counts = [0]
            await immich.start(task, everything=everything)
        assert server.started == [
            {"command": "start"},
            {"command": "start", "force": False},
            {"command": "start", "force": True},
        ]


async def test_who_is_not_let_in_is_told_what_is_missing() -> None:
    with running_immich(permissions=set()) as server:
        with pytest.raises(ImmichError, match="does not accept the API key"):
            await Immich(server.url, "wrong").assets()
        with pytest.raises(ImmichError, match=r"administrator's, with the permission server\.statistics"):
            await Immich(server.url, KEY).assets()


@pytest.mark.parametrize("url", ["immich:2283", "http://immich:port", "http://"])
async def test_an_address_that_is_none_cannot_be_reached(url: str) -> None:
    with pytest.raises(ImmichError, match="cannot be reached"):
        await Immich(url, KEY).version()


async def test_nobody_there_cannot_be_reached() -> None:
    with pytest.raises(ImmichError, match=r"/api/server/version cannot be reached: .+"):
        await Immich(f"http://127.0.0.1:{free_ports(1)[0]}", KEY).version()


@asynccontextmanager
async def answering(handle: web.RequestHandler | object) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Serve every request with *handle*; gives a session and the address."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def drip(request: web.Request) -> web.StreamResponse:
    """Send a byte now and then, for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.01)


async def nothing(_request: web.Request) -> web.Response:
    """Have none of what is asked for."""
    return web.Response(status=404)


async def redirect(request: web.Request) -> web.Response:
    """Send everybody to a login page, which answers 200."""
    return web.Response() if request.path == "/login" else web.Response(status=302, headers={"Location": "/login"})


async def test_an_answer_that_does_not_end_is_cut() -> None:
    async with answering(drip) as (session, url):
        assert (await exchange(session, "GET", url, headers=[], within=30, at_most=10)).content == b"x" * 10
        with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
            await exchange(session, "GET", url, headers=[], within=0.3)


async def test_a_redirect_is_followed_by_who_only_looks() -> None:
    async with answering(redirect) as (session, url):
        assert (await exchange(session, "PUT", url, headers=[], within=30)).status == 302
        assert (await exchange(session, "GET", url, headers=[], within=30, follow=True)).status == 200
        with pytest.raises(ImmichError, match="Immich answered 302"):
            await Immich(url, KEY).start("ocr", everything=False)
        with pytest.raises(ImmichError, match="is that an Immich server"):
            await Immich(url, KEY).version()


def test_a_photo_cannot_leave_its_place_in_the_path() -> None:
    assert text_of("../users?x") == "/api/assets/..%2Fusers%3Fx/ocr"
