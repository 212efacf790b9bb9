"""immich-triton doctor --site, in front of what may stand there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aiohttp import web
from background_loop import in_background

from harness.ports import free_ports
from immich_triton.cli.site_diagnosis import site
from immich_triton.immich.api import SERVER_PING
from immich_triton.immich.site_ping import PING, PONG


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, dict[str, tuple[int, str]]]]:
    """Give the address of a server and what it answers, by path."""
    answers: dict[str, tuple[int, str]] = {}

    async def handle(request: web.Request) -> web.Response:
        status, text = answers.get(request.path, (200, "<html>a page</html>"))
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_get("/{tail:.*}", handle)
    with in_background(app) as url:
        yield url, answers


def test_all_is_well(server: tuple[str, dict[str, tuple[int, str]]]) -> None:
    url, answers = server
    answers |= {PING: (200, PONG), SERVER_PING: (200, '{"res":"pong"}')}
    assert [finding.level for finding in site(url)] == ["ok", "ok"]


def test_immich_alone_is_not_the_site(server: tuple[str, dict[str, tuple[int, str]]]) -> None:
    url, answers = server
    answers.clear()
    (finding,) = site(url)
    assert "is not the site: searches there are Immich's own" in finding.text
    assert "immich-triton run --web" in finding.fix


def test_an_immich_that_is_away_is_found_behind_it(server: tuple[str, dict[str, tuple[int, str]]]) -> None:
    url, answers = server
    answers |= {PING: (200, PONG), SERVER_PING: (502, "")}
    assert [*site(url)][-1].text == "Immich does not answer behind the site: status 502"


def test_nobody_there() -> None:
    (finding,) = site(f"http://127.0.0.1:{free_ports(1)[0]}")
    assert finding.text.startswith("nothing answers at ")
    assert "--site URL" in finding.fix
