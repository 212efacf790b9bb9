"""Where the metrics are served can be changed while the gateway runs; a change that fails changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import requests
from mitmproxy.exceptions import OptionsError
from mitmproxy.options import Options
from mitmproxy.test import taddons

from harness.ports import free_ports
from immich_triton.ml.configuration import Configuration
from immich_triton.ml.metrics import Metrics
from immich_triton.ml.service import Service

EVERYWHERE, HERE, BESIDE = "0.0.0.0", "127.0.0.1", "127.0.0.2"
"""Who listens everywhere answers at the third address too, another loopback address of Linux."""


@asynccontextmanager
async def serving(directory: Path, address: str) -> AsyncIterator[Options]:
    """Serve the metrics at *address* while the block lasts; gives the options."""
    service = Service()
    metrics = Metrics(service)
    with taddons.context(Configuration(service)) as context:
        context.master.addons.add(metrics)
        context.options.update(
            immich_models=str(directory), immich_state_dir=str(directory / "state"), immich_metrics_listen=address
        )
        metrics.running()
        try:
            yield context.options
        finally:
            metrics.done()
            service.close()


async def answers(host: str, port: int) -> bool:
    """Tell whether somebody serves ``/healthz`` there, within a second or two of the change."""
    for _ in range(20):
        with contextlib.suppress(requests.ConnectionError):
            answer = await asyncio.to_thread(requests.get, f"http://{host}:{port}/healthz", timeout=60)
            return answer.text == "ok\n"
        await asyncio.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("before", "after"), [(HERE, EVERYWHERE), (EVERYWHERE, HERE), (HERE, BESIDE), (HERE, "[::]"), (EVERYWHERE, "[::]")]
)
async def test_the_address_can_be_widened_and_narrowed_on_the_same_port(
    tmp_path: Path, before: str, after: str
) -> None:
    if after == "[::]" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6 sockets that take IPv4 too")
    (port,) = free_ports(1)
    async with serving(tmp_path, f"{before}:{port}") as options:
        assert await answers(HERE, port)
        options.update(immich_metrics_listen=f"{after}:{port}")
        assert await answers(HERE if after in (HERE, EVERYWHERE, "[::]") else after, port)
        assert await answers(BESIDE, port) is (after != HERE)
        assert await answers(HERE, port) is (after != BESIDE)


async def test_the_port_can_be_changed_and_the_metrics_switched_off(tmp_path: Path) -> None:
    first, second = free_ports(2)
    async with serving(tmp_path, f"{HERE}:{first}") as options:
        assert await answers(HERE, first)
        options.update(immich_metrics_listen=f"{HERE}:{second}")
        assert await answers(HERE, second)
        assert not await answers(HERE, first)
        options.update(immich_metrics_listen="")
        assert not await answers(HERE, second)


async def test_where_the_change_fails_the_metrics_stay_where_they_were(tmp_path: Path) -> None:
    first, second = free_ports(2)
    with socket.create_server((HERE, second)), socket.create_server((BESIDE, first)):
        async with serving(tmp_path, f"{HERE}:{first}") as options:
            assert await answers(HERE, first)
            for taken in (f"{HERE}:{second}", f"{EVERYWHERE}:{first}"):
                with pytest.raises(OptionsError, match="Address already in use"):
                    options.update(immich_metrics_listen=taken)
                assert options.immich_metrics_listen == f"{HERE}:{first}"
                assert await answers(HERE, first)
