"""immich-triton doctor --mt-photos, in front of what may stand there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from background_loop import in_background

from harness.ports import free_ports
from immich_triton.cli import mt_photos_diagnosis
from immich_triton.cli.mt_photos_diagnosis import mt_photos
from immich_triton.mt_photos.pages import CHECK
from immich_triton.mt_photos.settings import WELL_KNOWN_KEY

Server = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """Give the address of a server and what it does: its key, its /check, its /ping."""
    behaviour: dict[str, Any] = {}

    async def check(request: web.Request) -> web.Response:
        if request.headers.get("api-key") != behaviour["key"]:
            return web.json_response({"detail": "Invalid API key"}, status=401)
        return web.json_response(behaviour["check"])

    async def ping(_request: web.Request) -> web.Response:
        status, body = behaviour["ping"]
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_post("/check", check)
    app.router.add_get("/ping", ping)
    with in_background(app) as url:
        yield url, behaviour


@pytest.fixture
def server(running: Server) -> Server:
    running[1].update(key=WELL_KNOWN_KEY, check=CHECK, ping=(200, "pong"))
    return running


def test_all_is_well(server: Server) -> None:
    assert [finding.level for finding in mt_photos(server[0])] == ["ok", "ok"]


def test_the_well_known_key_is_warned_of_where_others_reach_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mt_photos_diagnosis, "on_loopback", lambda _url: False)
    assert [finding.level for finding in mt_photos(server[0])] == ["ok", "warning", "ok"]
    server[1]["key"] = "another"
    assert [finding.level for finding in mt_photos(server[0], "another")] == ["ok", "ok"]


@pytest.mark.parametrize(("given", "said"), [("", "the well-known key"), ("wrong", "this key")])
def test_another_key_is_told(server: Server, given: str, said: str) -> None:
    server[1]["key"] = "another"
    (finding,) = mt_photos(server[0], given)
    assert finding.text.endswith(f"does not accept {said}")
    assert "--mt-photos-key" in finding.fix


@pytest.mark.parametrize("check", [{"result": "pass", "title": "mt-photos-ai"}, {"result": "pass"}, ["pass"], "pass"])
def test_mt_photos_ai_itself_is_not_ours(server: Server, check: object) -> None:
    server[1]["check"] = check
    (finding,) = mt_photos(server[0])
    assert "is not ours" in finding.text
    assert "immich-triton run --mt-photos" in finding.fix


def test_a_page_without_such_an_api_is_not_ours(server: Server) -> None:
    (finding,) = mt_photos(f"{server[0]}/elsewhere")
    assert "is not ours" in finding.text


def test_what_is_not_ready_is_told_with_the_reason(server: Server) -> None:
    server[1]["ping"] = (503, {"detail": "clip_image: not loaded"})
    assert [*mt_photos(server[0])][-1].text == "it is not ready: clip_image: not loaded"


def test_nobody_there() -> None:
    (finding,) = mt_photos(f"http://127.0.0.1:{free_ports(1)[0]}")
    assert finding.text.startswith("nothing answers at ")
    assert "--mt-photos URL" in finding.fix
