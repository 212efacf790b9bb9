"""The end of the site: after SIGTERM requests in flight are finished, for so long and no longer; WebSockets are not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import requests
from gateway_process import GatewayProcess
from immich_site import ImmichSite
from mitmproxy.test import tflow
from site_process import running_web

from harness.program import eventually
from immich_triton.web.in_flight import InFlight
from immich_triton.web.service import Service


@contextmanager
def held(web: GatewayProcess, site: ImmichSite) -> Iterator[list[int]]:
    """Ask for what Immich holds back while the block lasts; gives the status that is answered, 0 for none."""
    site.held.add("/held")
    got: list[int] = []

    def ask() -> None:
        try:
            got.append(requests.get(f"{web.url}/held", timeout=120).status_code)
        except requests.ConnectionError:
            got.append(0)

    client = threading.Thread(target=ask)
    client.start()
    try:
        assert eventually(lambda: bool(site.of("/held")))
        yield got
    finally:
        site.held.clear()
        client.join(120)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_finished(site: ImmichSite, tmp_path: Path, number: signal.Signals) -> None:
    with running_web(tmp_path, site.url, web_drain_timeout=300) as web:
        with held(web, site) as got:
            os.kill(web.pid, number)
            assert eventually(lambda: "stopping: waiting for requests in flight" in web.log)
            with pytest.raises(requests.ConnectionError):  # nobody new is let in
                requests.get(f"{web.url}/other", timeout=60)
            assert web.process.poll() is None
        assert got == [200]
        assert web.process.wait(60) == 0
        assert "Traceback" not in web.log
        assert "cut off" not in web.log


def test_one_that_takes_too_long_is_cut_off(site: ImmichSite, tmp_path: Path) -> None:
    with running_web(tmp_path, site.url, web_drain_timeout=1) as web:
        with held(web, site) as got:
            os.kill(web.pid, signal.SIGTERM)
            assert web.process.wait(60) == 0
        assert got == [0]
        assert "stopping: requests are cut off after 1 s (web_drain_timeout)" in web.log
        assert "Traceback" not in web.log


async def test_an_open_websocket_is_not_waited_for(site: ImmichSite, tmp_path: Path) -> None:
    with running_web(tmp_path, site.url, web_drain_timeout=300) as web:
        address = f"{web.url}/api/socket.io/?EIO=4&transport=websocket"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as connection:
            assert (await connection.receive_str()).startswith("0{")
            os.kill(web.pid, signal.SIGTERM)
            assert web.process.wait(60) == 0
        assert "waiting for requests" not in web.log


def test_what_is_in_flight_is_counted_until_it_ends_or_its_client_is_gone() -> None:
    service = Service()
    in_flight = InFlight(service)

    def counted() -> float:
        value = service.measurements.registry.get_sample_value("immich_site_requests_in_flight")
        assert value is not None
        return value

    one, other, failed = (tflow.tflow(resp=True) for _ in range(3))
    other.client_conn = tflow.tclient_conn()
    other.client_conn.id = "another"
    for flow in (one, other, failed):
        flow.live = True
        in_flight.requestheaders(flow)
    assert counted() == 3
    in_flight.error(failed)
    in_flight.response(one)
    in_flight.response(one)
    assert counted() == 1
    in_flight.client_disconnected(other.client_conn)
    assert counted() == 0
