"""This machine's loopback is asked past any proxy, everybody else as the environment says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aiohttp import web
from background_loop import in_background

from immich_triton.core import direct_requests


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.headers['host'].partition(':')[0]}")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    with in_background(app) as address:
        yield address


@pytest.fixture(autouse=True)
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name the server as a proxy, for which a request names its host."""
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server)


def test_another_machine_is_asked_through_the_proxy() -> None:
    assert direct_requests.get("http://immich.invalid/x").text == "GET immich.invalid"


def test_this_machine_is_asked_past_it(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    assert direct_requests.get(server).text == "GET 127.0.0.1"
    assert direct_requests.post(server, data=b"x").text == "POST 127.0.0.1"
    assert direct_requests.request("PUT", server).text == "PUT 127.0.0.1"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("host", ["127.0.0.1", "immich.invalid"])
def test_certificates_are_those_that_the_environment_names(
    host: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(other, raising=False)
    assert direct_requests.authorities() is True
    monkeypatch.setenv(name, "/nowhere/ca.pem")
    with pytest.raises(OSError, match=r"/nowhere/ca\.pem"):
        direct_requests.get(f"https://{host}:9", timeout=10)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:3003", True),
        ("http://[::1]/ping", True),
        ("http://localhost", True),
        ("http://127.0.0.1.example.com", False),
        ("http://user@10.0.0.1", False),
        ("no address", False),
        ("http://[", False),
    ],
)
def test_which_addresses_are_of_this_machine(url: str, here: bool) -> None:
    assert direct_requests.on_loopback(url) is here
