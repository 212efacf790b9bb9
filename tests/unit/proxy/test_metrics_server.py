"""/metrics, /healthz and /readyz on an address of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from harness.ports import free_ports
from immich_triton.proxy.metrics_server import MetricsServer, listen

REMEDY = "Choose another with --metrics-port N"


class Site:
    """A server with one gauge, which counts the scrapes."""

    def __init__(self, url: str, session: aiohttp.ClientSession, unready: dict[str, str]) -> None:
        self.url = url
        self.session = session
        self.unready = unready

    async def ask(self, method: str, path: str) -> tuple[int, str]:
        async with self.session.request(method, self.url + path) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        yield site


@asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    registry = CollectorRegistry()
    scrapes = Gauge("scrapes", "how many", registry=registry)
    unready: dict[str, str] = {}

    async def collect() -> None:
        scrapes.inc()

    async def why_not_ready() -> dict[str, str]:
        return unready

    listener = listen("127.0.0.1", free_ports(1)[0], REMEDY)
    host, port = listener.getsockname()
    server = MetricsServer(listener, registry, collect=collect, why_not_ready=why_not_ready)
    await server.serve()
    async with aiohttp.ClientSession() as session:
        yield Site(f"http://{host}:{port}", session, unready)
    server.close()
    listen("127.0.0.1", port, REMEDY).close()  # whoever is loaded next has the address at once
    await asyncio.gather(
        *(task for task in asyncio.all_tasks() if task.get_name().startswith("close the metrics' connections"))
    )


async def test_metrics_are_up_to_date_at_every_scrape(site: Site) -> None:
    for number in (1, 2):
        status, text = await site.ask("GET", "/metrics")
        assert status == 200
        assert f"scrapes {number}.0" in text


async def test_readiness_says_what_is_missing(site: Site) -> None:
    assert await site.ask("GET", "/readyz") == (200, '{"ready":true,"unready":{}}')
    site.unready["ocr"] = "not ready in Triton"
    assert await site.ask("GET", "/readyz") == (503, '{"ready":false,"unready":{"ocr":"not ready in Triton"}}')
    assert await site.ask("GET", "/healthz") == (200, "ok\n"), "the process need not be started anew"


async def test_nothing_else_is_there_and_nothing_can_be_sent(site: Site) -> None:
    assert (await site.ask("GET", "/"))[0] == 404
    assert (await site.ask("POST", "/metrics"))[0] == 405
    assert await site.ask("HEAD", "/healthz") == (200, "")


def test_who_has_the_address_already_stops_the_start() -> None:
    port = free_ports(1)[0]
    with listen("127.0.0.1", port, REMEDY) as listener:
        assert not listener.getblocking()
        with pytest.raises(ValueError, match=rf"cannot serve metrics on 127\.0\.0\.1:{port}: .*--metrics-port N"):
            listen("127.0.0.1", port, REMEDY)


def test_a_name_that_is_none_stops_the_start() -> None:
    with pytest.raises(ValueError, match=r"cannot serve metrics on .*--metrics-port N"):
        listen("300.0.0.1", 9464, REMEDY)
