"""Requests that end in time, whatever the other side does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import requests
from aiohttp import web
from background_loop import in_background

from harness.ports import free_ports
from immich_triton.core import bounded_http
from immich_triton.core.bounded_http import Reply, ask


async def plain(request: web.Request) -> web.Response:
    return web.json_response({"method": request.method, "mark": request.headers.get("x-mark")}, status=418)


async def packed(_request: web.Request) -> web.Response:
    response = web.Response(body=b"text " * 1000)
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def drip(request: web.Request) -> web.StreamResponse:
    """Send a byte now and then: each of them is a sign of life to `requests`."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.02)


async def cut(request: web.Request) -> web.StreamResponse:
    """Promise more than is sent."""
    response = web.StreamResponse(headers={"content-encoding": "gzip"})
    await response.prepare(request)
    await response.write(b"this is no gzip")
    return response


async def large(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(5):
        await response.write(bytes(1 << 10))
    return response


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = web.Application()
    for handler in (plain, packed, drip, cut, large):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    with in_background(app) as address:
        yield address


def test_an_answer_is_one_whatever_its_status(url: str) -> None:
    reply = ask("PUT", f"{url}/plain", headers={"x-mark": "7"})
    assert (reply.status, reply.ok) == (418, False)
    assert reply.json() == {"method": "PUT", "mark": "7"}
    assert reply.headers["Content-Type"].startswith("application/json")


def test_the_body_is_unpacked(url: str) -> None:
    assert ask("GET", f"{url}/packed").body == b"text " * 1000


def test_of_a_large_answer_a_part_is_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "LARGEST", 1 << 10)
    assert len(ask("GET", f"{url}/large").body) == 1 << 10


def test_who_sends_a_byte_now_and_then_is_given_up(url: str) -> None:
    with pytest.raises(requests.Timeout, match=r"no answer within 0\.1 s"):
        ask("GET", f"{url}/drip", seconds=0.1)


def test_a_body_that_cannot_be_read_is_an_error_of_requests(url: str) -> None:
    with pytest.raises(requests.RequestException, match="gzip"):
        ask("GET", f"{url}/cut")


def test_nobody_there_is_an_error_of_requests() -> None:
    with pytest.raises(requests.ConnectionError):
        ask("GET", f"http://127.0.0.1:{free_ports(1)[0]}/")


def test_what_is_no_json_is_a_value_error_however_deep() -> None:
    for body, why in ((b"", "Expecting value"), (b"<html>", "Expecting value"), (b"[" * 100_000, "nested too deeply")):
        with pytest.raises(ValueError, match=why):
            Reply(200, body).json()
    assert Reply(399, b"").ok
    assert not Reply(400, b"").ok
