"""How the site is started and asked; the whole: process/test_run_site.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from background_loop import in_background

from harness.ports import free_ports
from immich_triton.immich.site_ping import PING, PONG
from immich_triton.server.preflight import StartError
from immich_triton.server.proxy_process import WebInterface
from immich_triton.server.site_process import ADDON, SiteProcess, SiteSettings


def settings(directory: Path = Path("run"), **changes: Any) -> SiteSettings:
    return replace(SiteSettings("http://immich:2283", "127.0.0.1", 2284, 9465, directory), **changes)


def test_the_command_line() -> None:
    command = settings(options=["--set", "web_depth=10"]).command
    assert Path(command[0]).name == "mitmdump"
    assert command[1:] == [
        f"--scripts={ADDON}",
        "--mode=reverse:http://immich:2283",
        "--listen-host=127.0.0.1",
        "--listen-port=2284",
        "--set=web_metrics_listen=127.0.0.1:9465",
        "--set",
        "web_depth=10",
    ]
    assert ADDON.is_file()


def test_each_port_is_chosen_by_an_option_of_the_site() -> None:
    ports = settings(web=WebInterface(8082, "hash")).ports
    assert [(port.number, port.remedy.partition("run ")[2]) for port in ports] == [
        (2284, "--web-port N"),
        (9465, "--web-metrics-port N"),
        (8082, "--web-inspect --web-inspect-port N"),
    ]
    assert [port.number for port in settings(metrics_port=None).ports] == [2284]
    assert settings(options=["--set=web_metrics_listen=0.0.0.0:1"]).metrics == "0.0.0.0:1"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, dict[str, str]]]:
    """Give the port of a server and what it answers, by path."""
    answers: dict[str, str] = {}

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=answers.get(request.path, "<html>a page</html>"))

    app = web.Application()
    app.router.add_get("/{tail:.*}", handle)
    with in_background(app) as url:
        yield urlsplit(url).port or 0, answers


def test_it_is_told_from_immich_itself(server: tuple[int, dict[str, str]], tmp_path: Path) -> None:
    port, answers = server
    site = SiteProcess(settings(tmp_path, port=port))
    answers.clear()
    with pytest.raises(StartError, match=r"mitmproxy runs without .*immich_web\.py"):
        site.answers()
    answers[PING] = PONG
    assert site.answers()


def test_nobody_there_does_not_answer(tmp_path: Path) -> None:
    assert not SiteProcess(settings(tmp_path, port=free_ports(1)[0])).answers()
