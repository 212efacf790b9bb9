"""What is not ours reaches the stock ML byte for byte, streamed both ways."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest
import requests
from gateway_process import GatewayProcess, running_gateway
from places import DATA
from recorder import Recorder, recording_upstream

from harness.ports import free_ports

WIRE = DATA / "wire"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    # Stock ML's uvicorn closes idle connections after 2 s.
    with recording_upstream(keepalive=2.0) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(upstream: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "models").mkdir()
    triton = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(directory, models=directory / "models", triton_url=triton, upstream=upstream.url) as process:
        yield process


@pytest.mark.parametrize("name", ["unknown_task", "ocr", "clip_textual", "multi_clip_ocr"])
def test_unrouted_predictions_arrive_byte_for_byte(gateway: GatewayProcess, upstream: Recorder, name: str) -> None:
    headers = json.loads((WIRE / f"{name}.headers.json").read_text())["headers"]
    body = (WIRE / f"{name}.body").read_bytes()
    response = requests.post(f"{gateway.url}/predict", data=body, headers=headers, timeout=60)
    assert (response.status_code, response.content) == upstream.answer
    assert response.headers["x-up"] == "yes"
    seen = upstream.seen[-1]
    assert (seen.method, seen.target, seen.sha256) == ("POST", "/predict", hashlib.sha256(body).hexdigest())
    kept = {key: value for key, value in headers.items() if key not in {"host", "connection"}}
    assert {key: seen.header(key) for key in kept} == kept


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_keeps_method_path_query_and_headers(gateway: GatewayProcess, upstream: Recorder, method: str) -> None:
    target = "/some%2Fwhere//x/../y?b=1&a=%20&b=2"
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
    body = None if method in {"GET", "HEAD", "OPTIONS"} else b"payload"
    connection.request(method, target, body=body, headers={"X-One": "1", "Accept-Encoding": "identity"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    seen = upstream.seen[-1]
    assert (seen.method, seen.target, seen.body) == (method, target, body or b"")
    assert seen.header("x-one") == "1"
    assert content == (b"" if method == "HEAD" else upstream.answer[1])
    assert response.headers["content-length"] == str(len(upstream.answer[1]))


@pytest.mark.parametrize("target", [b"/\xff", b"/caf\xe9/%ff?\x80=\xc3\xa9"])
def test_a_target_that_is_no_text_arrives_byte_for_byte(tmp_path: Path, target: bytes) -> None:
    # Bare sockets: no library at either end takes it for a request.
    (tmp_path / "models").mkdir()
    (triton_port,) = free_ports(1)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        running_gateway(
            tmp_path,
            models=tmp_path / "models",
            triton_url=f"http://127.0.0.1:{triton_port}",
            upstream=f"http://127.0.0.1:{listener.getsockname()[1]}",
        ) as gateway,
        socket.create_connection(gateway.address, 60) as client,
    ):
        client.sendall(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % target)
        listener.settimeout(60)
        upstream, _ = listener.accept()
        with upstream:
            assert upstream.recv(65536).startswith(b"GET %s HTTP/1.1\r\n" % target)
            upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 204 ")


def test_get_predict_is_the_upstreams_business(gateway: GatewayProcess, upstream: Recorder) -> None:
    assert requests.get(f"{gateway.url}/predict", timeout=60).content == upstream.answer[1]
    assert upstream.seen[-1].method == "GET"


def test_chunked_requests_and_answers_are_streamed(gateway: GatewayProcess, upstream: Recorder) -> None:
    def parts() -> Iterator[bytes]:
        yield b"a" * 10
        yield b"b" * 20

    requests.post(f"{gateway.url}/upload", data=parts(), timeout=60)
    seen = upstream.seen[-1]
    assert (seen.body, seen.header("transfer-encoding")) == (b"a" * 10 + b"b" * 20, "chunked")
    answer = requests.get(f"{gateway.url}/chunked", timeout=60)
    assert (answer.content, answer.headers["transfer-encoding"]) == (b"one,two,three", "chunked")


def test_100_continue_is_answered(gateway: GatewayProcess, upstream: Recorder) -> None:
    with socket.create_connection(gateway.address, 60) as client:
        client.sendall(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"body")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert upstream.seen[-1].body == b"body"


async def test_websockets_are_upgraded(gateway: GatewayProcess) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{gateway.url}/ws") as websocket:
        await websocket.send_str("你好")
        assert (await websocket.receive(60)).data == "你好"
        await websocket.send_bytes(b"\0\xff")
        assert (await websocket.receive(60)).data == b"\0\xff"


@pytest.mark.timeout(900)
def test_a_gibibyte_passes_with_flat_memory(gateway: GatewayProcess, upstream: Recorder) -> None:
    mebibyte, count = b"\1" * (1 << 20), 1024
    requests.get(f"{gateway.url}/download/64", timeout=60)
    growth = gateway.growth()
    requests.post(f"{gateway.url}/upload", data=itertools.repeat(mebibyte, count), timeout=120)
    assert upstream.seen[-1].size == count << 20
    with requests.get(f"{gateway.url}/download/{count}", stream=True, timeout=120) as response:
        assert sum(map(len, response.iter_content(1 << 20))) == count << 20
    assert growth() < 50 << 20


def test_an_upstream_that_closes_idle_connections_loses_no_request(gateway: GatewayProcess) -> None:
    # Sixty clients, each with one connection and five requests 2.0 s ± 15 ms apart: the upstream closes at 2.0 s.
    def client(index: int) -> list[int]:
        connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
        statuses = []
        for round_ in range(5):
            if round_:
                time.sleep(2.0 + (index - 29.5) / 29.5 * 0.015)
            connection.request("POST", "/x", body=b"y")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()
        return statuses

    with ThreadPoolExecutor(60) as pool:
        statuses = [status for mine in pool.map(client, range(60)) for status in mine]
    assert statuses == [200] * 300


def test_without_an_upstream_the_error_is_clear(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    upstream_port, triton_port = free_ports(2)
    with running_gateway(
        tmp_path,
        models=tmp_path / "models",
        triton_url=f"http://127.0.0.1:{triton_port}",
        upstream=f"http://127.0.0.1:{upstream_port}",
    ) as gateway:
        response = requests.get(f"{gateway.url}/", timeout=60)
        assert response.status_code == 502
        assert f"The stock Immich ML at http://127.0.0.1:{upstream_port} did not answer" in response.json()["detail"]
        assert requests.head(f"{gateway.url}/", timeout=60).status_code == 502
        # Nothing is routed, so nothing is missing.
        assert requests.get(f"{gateway.url}/ping", timeout=60).text == "pong"


def test_a_prediction_without_content_length_is_refused_at_once(gateway: GatewayProcess, upstream: Recorder) -> None:
    before, growth = len(upstream.seen), gateway.growth()
    with socket.create_connection(gateway.address, 60) as client:
        client.sendall(b"POST //%70redict/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 411 ")
        with contextlib.suppress(OSError):  # the connection ends
            for _ in range(64):
                client.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
    assert growth() < 32 << 20
    assert len(upstream.seen) == before
