"""Where the metrics are served can be changed; a change that fails changes nothing. More: ml/test_metrics_listen.py."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from harness.ports import free_ports
from immich_triton.proxy.metrics_page import MetricsPage

HERE = "127.0.0.1"


@pytest.fixture
async def page() -> AsyncIterator[MetricsPage]:
    registry = CollectorRegistry()
    Gauge("one", "one", registry=registry)

    async def nothing() -> None:
        return None

    async def ready() -> dict[str, str]:
        return {}

    page = MetricsPage(registry, collect=nothing, why_not_ready=ready, remedy="Choose another.")
    page.running()
    yield page
    page.close()


async def served(port: int) -> bool:
    """Tell whether the metrics are served there."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{HERE}:{port}/metrics") as answer:
            return "one 0.0" in await answer.text()
    except aiohttp.ClientConnectionError:
        return False


async def test_it_moves_and_goes(page: MetricsPage) -> None:
    first, second = free_ports(2)
    page.move((HERE, first))
    page.move((HERE, first))
    assert await served(first)
    page.move((HERE, second))
    assert (await served(first), await served(second)) == (False, True)
    page.move(None)
    assert not await served(second)


@pytest.mark.parametrize("port_of_before", [True, False])
async def test_where_it_cannot_move_it_stays(page: MetricsPage, port_of_before: bool) -> None:
    first, second = free_ports(2)
    page.move((HERE, first))
    taken = ("127.0.0.2", first) if port_of_before else (HERE, second)
    with (
        socket.create_server(taken),
        pytest.raises(ValueError, match=r"cannot serve metrics on .*: Address already in use\. Choose another\."),
    ):
        page.move(taken)
    assert await served(first)
