"""The whole site passes through as it is, streamed; what breaks in here leaves the user with stock Immich."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import requests
from gateway_process import GatewayProcess
from immich_photos import KEY, Photo, photo_id
from immich_site import PAGE, PICTURE, SCRIPT, ImmichSite, running_site
from site_process import running_web

from harness.program import eventually

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def site() -> Iterator[ImmichSite]:
    with running_site(photos=[Photo(number) for number in range(3)]) as double:
        yield double


@pytest.fixture(scope="module")
def web(site: ImmichSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_web(tmp_path_factory.mktemp("web"), site.url) as process:
        yield process


def get(web: GatewayProcess, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask without a library that adds headers or unpacks anything."""
    connection = http.client.HTTPConnection(*web.address, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def test_compressed_files_arrive_as_they_are_with_their_caching_headers(web: GatewayProcess) -> None:
    status, headers, content = get(web, "/_app/immutable/start.js", **{"Accept-Encoding": "gzip, deflate, br, zstd"})
    assert (status, content) == (200, SCRIPT)
    assert headers["content-encoding"] == "br"
    assert headers["cache-control"] == "public,max-age=31536000,immutable"
    assert headers["etag"] == 'W/"1"'


def test_the_page_is_unchanged(web: GatewayProcess) -> None:
    status, headers, content = get(web, "/photos", Accept="text/html")
    assert (status, content, headers["etag"], headers["cache-control"]) == (200, PAGE, '"page"', "no-store")


def test_parts_and_unchanged_pictures(web: GatewayProcess) -> None:
    path = f"/api/assets/{photo_id(1)}/original"
    status, headers, content = get(web, path, Range="bytes=1000-1999")
    assert (status, content) == (206, PICTURE[1000:2000])
    assert headers["content-range"] == f"bytes 1000-1999/{len(PICTURE)}"
    assert get(web, path, **{"If-None-Match": '"the-picture"'})[0] == 304


def test_method_target_and_headers_arrive(web: GatewayProcess, site: ImmichSite) -> None:
    status, _, _ = get(web, "/some%2Fwhere//x/../y?b=1&a=%20&b=2", **{"X-One": "1", "Cookie": "a=1; b=2"})
    seen = site.seen[-1]
    assert (status, seen.target) == (200, "/some%2Fwhere//x/../y?b=1&a=%20&b=2")
    assert (seen.header("x-one"), seen.header("cookie")) == ("1", "a=1; b=2")


def test_immich_sees_the_host_and_who_asks_and_how(web: GatewayProcess, site: ImmichSite) -> None:
    get(web, "/", Host="photos.example.org")
    seen = site.seen[-1]
    assert seen.header("host") == "photos.example.org"
    assert (seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")) == ("127.0.0.1", "http")


def test_what_a_proxy_in_front_says_is_kept(web: GatewayProcess, site: ImmichSite) -> None:
    get(web, "/", **{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example"})
    seen = site.seen[-1]
    assert seen.header("x-forwarded-for") == "203.0.113.9, 127.0.0.1"
    assert (seen.header("x-forwarded-proto"), seen.header("x-forwarded-host")) == ("https", "a.example")


def test_is_no_open_proxy(web: GatewayProcess, site: ImmichSite) -> None:
    with socket.create_connection(web.address, 60) as client:
        client.sendall(b"GET http://elsewhere.example/photos HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert site.seen[-1].target == "/photos"


def test_tls_may_end_here_and_speaks_http_1(web: GatewayProcess, site: ImmichSite) -> None:
    """HTTP/2 is not offered: mitmproxy would hand on a body without a length as the next request."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(web.address, 60) as plain,
        context.wrap_socket(plain, server_hostname="photos.example.org") as client,
    ):
        assert client.selected_alpn_protocol() == "http/1.1"
        client.sendall(b"GET /photos HTTP/1.1\r\nHost: photos.example.org\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert site.seen[-1].header("x-forwarded-proto") == "https"


async def test_the_websocket_lives_and_its_messages_are_not_kept(web: GatewayProcess, site: ImmichSite) -> None:
    address = f"{web.url}/api/socket.io/?EIO=4&transport=websocket"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as connection:
        assert (await connection.receive_str()).startswith("0{")
        growth = web.growth()
        payload = "x" * (MEBIBYTE // 2)
        for _ in range(80):
            await connection.send_str(payload)
            assert await connection.receive_str() == payload
        assert growth() < 30 * MEBIBYTE  # 80 MiB have passed


def test_an_upload_is_streamed_with_flat_memory(web: GatewayProcess, site: ImmichSite) -> None:
    get(web, "/")
    block, count = os.urandom(MEBIBYTE), 192
    growth = web.growth()
    connection = http.client.HTTPConnection(*web.address, timeout=120)
    headers = {"x-api-key": KEY, "Content-Length": str(count * MEBIBYTE)}
    connection.request("POST", "/api/assets", body=itertools.repeat(block, count), headers=headers)
    assert connection.getresponse().status == 201
    connection.close()
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(block)
    assert site.uploads[-1] == (count * MEBIBYTE, digest.hexdigest())
    assert growth() < 32 * MEBIBYTE


def test_an_upload_that_is_refused_early_gets_its_refusal(web: GatewayProcess) -> None:
    with socket.create_connection(web.address, 60) as client:
        client.sendall(b"POST /api/assets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        assert client.recv(4096).startswith(b"HTTP/1.1 401")


def test_a_large_body_at_the_address_of_a_search_is_streamed_too(web: GatewayProcess, site: ImmichSite) -> None:
    body = json.dumps({"query": "cat", "padding": "x" * (3 * MEBIBYTE)})
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    assert requests.post(f"{web.url}/api/search/smart", data=body, headers=headers, timeout=60).status_code == 200
    assert site.seen[-1].body == body.encode()


def test_keys_in_addresses_and_queries_are_not_logged(web: GatewayProcess) -> None:
    get(web, "/api/assets/1/ocr?apiKey=very-secret-key")
    requests.post(f"{web.url}/api/search/smart?apiKey=very-secret-key", json={"query": "private-words"}, timeout=60)
    log = web.whole_log()
    assert "very-secret-key" not in log
    assert "private-words" not in log
    assert "Streaming re" not in log


def test_nothing_is_logged_of_ordinary_connections(tmp_path: Path, site: ImmichSite) -> None:
    """Immich's web app makes hundreds in an hour: what matters would not be found among them."""
    said = [" client connect", " client disconnect", " server connect ", " server disconnect "]
    with running_web(tmp_path / "quiet", site.url) as web:
        before = web.whole_log()
        for _ in range(3):
            assert get(web, "/photos")[0] == get(web, "/api/assets/1/original")[0] == 200
        log = web.whole_log().removeprefix(before)
        assert [line for line in log.splitlines() if any(one in line for one in [*said, "Streaming re"])] == []
        assert len(log.splitlines()) == 1  # the mark of the end, a broken request
    with running_web(tmp_path / "debug", site.url, termlog_verbosity="debug") as web:
        get(web, "/photos")
        assert eventually(lambda: all(one in web.log for one in said))


def test_without_immich_clients_get_502_and_mitmdump_lives(tmp_path: Path) -> None:
    with running_site() as gone:
        address = gone.url
    with running_web(tmp_path, address) as web:
        headers = {"content-type": "application/json"}
        assert get(web, "/photos")[0] == 502
        answer = requests.post(f"{web.url}/api/search/smart", data='{"query":"cat"}', headers=headers, timeout=60)
        assert answer.status_code == 502
        assert "Traceback" not in web.log
        assert web.log.count("a search is left to Immich as it is") == 1


PLANTED = """
import immich_web
from immich_triton.web import {module}

def planted(*arguments, **more):
    raise ZeroDivisionError("planted: " + repr(arguments))

{module}.{name} = planted
addons = immich_web.addons
"""


@pytest.mark.parametrize(
    ("module", "name", "what"),
    [
        ("search", "parse", "a search"),
        ("fusion", "fuse", "a search"),
        ("site", "tell_who_asks", "a request"),
    ],
)
def test_a_fault_of_ours_leaves_stock_and_one_line(
    site: ImmichSite, tmp_path: Path, module: str, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(module=module, name=name))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "addons"))
    body = {"query": "planted-words", "size": 2}
    stock = requests.post(f"{site.url}/api/search/smart", json=body, headers={"x-api-key": KEY}, timeout=60)
    with running_web(tmp_path, site.url, script=script) as web:
        ours = requests.post(f"{web.url}/api/search/smart", json=body, headers={"x-api-key": KEY}, timeout=60)
        assert (ours.status_code, ours.content, dict(ours.headers)["ETag"]) == (
            200,
            stock.content,
            stock.headers["ETag"],
        )
        assert eventually(lambda: "because of a fault here" in web.log)
        (line,) = [line for line in web.whole_log().splitlines() if "fault here" in line]
    assert f"{what} is left to Immich as it is" in line
    assert "ZeroDivisionError in" in line
    assert "planted-words" not in line
