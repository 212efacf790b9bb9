"""What clients and the upstream may take: connections, bytes, time. All with a real mitmdump."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder
from scrape import Scrape
from stand_in_triton import StandInTriton, stand_in_triton, write_routes

from harness.program import eventually
from immich_triton.immich.ml_client import encode, entries_for, predict

HEADER_TIMEOUT, BODY_TIMEOUT, UPSTREAM_TIMEOUT = 2, 3, 3
"""Of the gateway that does not wait long, in seconds."""

FLAT = 32 << 20
"""Bytes: the memory may grow by less at its peak, while twice as much is sent or more."""


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture(scope="module")
def silent() -> Iterator[socket.socket]:
    """An upstream that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def start(
    triton: StandInTriton, silent: socket.socket, directory: Path, **options: Any
) -> AbstractContextManager[GatewayProcess]:
    return running_gateway(
        directory,
        models=write_routes(directory / "models"),
        triton_url=triton.url,
        upstream=f"http://127.0.0.1:{silent.getsockname()[1]}",
        **options,
    )


@pytest.fixture(scope="module")
def gateway(
    triton: StandInTriton, silent: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway with little room, before an upstream that says nothing."""
    sizes = {"max_body_mib": 2, "max_waiting_mib": 4, "max_parts": 4, "max_connections": 60}
    options = {f"immich_{name}": size for name, size in sizes.items()}
    with start(triton, silent, tmp_path_factory.mktemp("gateway"), **options) as process:
        yield process


@pytest.fixture(scope="module")
def hasty(
    triton: StandInTriton, silent: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway with little time, before an upstream that says nothing."""
    times = {"header": HEADER_TIMEOUT, "body": BODY_TIMEOUT, "upstream": UPSTREAM_TIMEOUT}
    options = {f"immich_{name}_timeout": seconds for name, seconds in times.items()}
    with start(triton, silent, tmp_path_factory.mktemp("hasty"), **options) as process:
        yield process


def connect(gateway: GatewayProcess) -> socket.socket:
    return socket.create_connection(gateway.address, 60)


def read_all(client: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            received += data
    return received


def head(method: str, path: str, length: int | None = None) -> bytes:
    text = f"{method} {path} HTTP/1.1\r\nHost: h\r\n"
    return (text + (f"Content-Length: {length}\r\n" if length is not None else "") + "\r\n").encode()


@pytest.mark.parametrize("path", ["/predict", "/predict%0a"])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(gateway: GatewayProcess, path: str) -> None:
    growth = gateway.growth()
    with connect(gateway) as client:
        client.sendall(head("POST", path, (2 << 20) + 1))
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"immich_max_body_mib" in answer
        with contextlib.suppress(OSError):
            for _ in range(64):
                client.sendall(bytes(1 << 20))
    assert growth() < FLAT


def test_large_and_small_bodies_take_turns_on_one_connection(gateway: GatewayProcess) -> None:
    """Bodies are read in larger pieces than heads, which are a flood when they have as many bytes."""
    with requests.Session() as session:
        for size in (10, 1 << 20, 10, 300_000, 300_000, 10, 1 << 20):
            kind, body = encode(entries_for("ocr"), image=b"\xff\xd8" + bytes(size))
            answer = session.post(f"{gateway.url}/predict", data=body, headers={"Content-Type": kind}, timeout=60)
            assert answer.status_code == 200, answer.text


def test_too_many_bytes_wait_and_queries_still_pass(gateway: GatewayProcess, triton: StandInTriton) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):  # two bodies of almost 2 MiB are announced: nearly all that may wait
            client = stack.enter_context(connect(gateway))
            client.sendall(head("POST", "/predict", (2 << 20) - 1) + b"begin")
        assert eventually(lambda: predict(gateway.url, entries_for("ocr"), image=bytes(1 << 20)).status == 503)
        content_type, body = encode(entries_for("ocr"), image=bytes(1 << 20))
        refused = requests.post(f"{gateway.url}/predict", body, headers={"content-type": content_type}, timeout=60)
        assert int(refused.headers["retry-after"]) > 0
        assert "immich_max_waiting_mib" in refused.json()["detail"]
        assert predict(gateway.url, entries_for("clip-text"), text="猫").status == 200
    # What they held is given back when they go.
    assert eventually(lambda: predict(gateway.url, entries_for("ocr"), image=bytes(1 << 20)).status == 200)


def test_a_form_with_too_many_parts_is_refused(gateway: GatewayProcess) -> None:
    form = {f"field{index}": (None, "x") for index in range(5)}
    answer = requests.post(f"{gateway.url}/predict", files=form, timeout=60)
    assert answer.status_code == 400
    assert answer.json() == {"detail": "Too many fields. Maximum number of fields is 4."}


@pytest.mark.parametrize(
    ("begin", "rest", "within"),
    [
        (b"POST /predict HTTP/1.1\r\nHost:", b" ", HEADER_TIMEOUT),
        (head("POST", "/predict", 1000), b"x", BODY_TIMEOUT),
    ],
    ids=["headers", "body of a prediction"],
)
def test_a_slow_client_gets_408(hasty: GatewayProcess, begin: bytes, rest: bytes, within: float) -> None:
    with connect(hasty) as client:
        started = time.monotonic()
        client.sendall(begin)
        client.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() - started < within + 30:
            with contextlib.suppress(ConnectionError):
                client.sendall(rest)  # one byte at a time
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started >= within


def test_headers_without_end_are_refused(gateway: GatewayProcess) -> None:
    growth = gateway.growth()
    with connect(gateway) as client:
        client.sendall(b"GET /ping HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for index in range(64_000):
                client.sendall(f"X-{index}: {'x' * 1000}\r\n".encode())
        assert read_all(client)[:13] in (b"HTTP/1.1 431 ", b"")  # a reset may overtake the answer
    assert growth() < FLAT


def test_what_a_client_sends_ahead_is_bounded(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = gateway.growth()
    content_type, body = encode(entries_for("clip-text"), text="x")
    with triton.holding(), connect(gateway) as client:
        client.sendall(
            f"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            client.sendall(bytes(64 << 20))
    assert growth() < FLAT


def test_a_ping_has_no_body(gateway: GatewayProcess) -> None:
    with connect(gateway) as client:
        client.sendall(head("GET", "/ping", 1 << 40))
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_there_are_only_so_many_connections(gateway: GatewayProcess) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(gateway)) for _ in range(70)]
        assert eventually(lambda: sum(is_closed(client) for client in clients) >= 10)
    assert eventually(lambda: is_well(gateway))


def is_well(gateway: GatewayProcess) -> bool:
    try:
        return requests.get(f"{gateway.url}/ping", timeout=60).ok
    except requests.ConnectionError:
        return False


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_silent_upstream_gives_504_and_does_not_touch_what_is_routed(hasty: GatewayProcess) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        passing = pool.submit(requests.get, f"{hasty.url}/x", timeout=60)
        answered = 0
        while not passing.done():
            assert predict(hasty.url, entries_for("ocr"), image=b"image").status == 200
            answered += 1
    assert passing.result().status_code == 504
    assert time.monotonic() - started >= UPSTREAM_TIMEOUT
    assert answered > 2


def test_an_upload_that_nobody_reads_ends_with_flat_memory(hasty: GatewayProcess) -> None:
    growth = hasty.growth()
    with connect(hasty) as client:
        client.sendall(head("POST", "/upload", 1 << 30))
        with pytest.raises(ConnectionError):
            client.sendall(bytes(1 << 30))
    assert growth() < FLAT


async def test_200_clients_that_send_one_byte_a_second_do_not_slow_others(
    triton: StandInTriton, upstream: Recorder, tmp_path: Path
) -> None:
    with running_gateway(
        tmp_path, models=write_routes(tmp_path / "models"), triton_url=triton.url, upstream=upstream.url
    ) as gateway:
        # One of many, since what else the machine does slows one of the two at times.
        for _ in range(10):
            if (times_longer := await slowdown(gateway)) < 2:
                return
        pytest.fail(f"a prediction took {times_longer:.1f} times as long")


async def slowdown(gateway: GatewayProcess) -> float:
    """Return how many times longer a prediction takes beside the clients."""
    quiet = await asyncio.to_thread(latency, gateway)
    async with dripping(gateway, 200):
        return await asyncio.to_thread(latency, gateway) / quiet


@contextlib.asynccontextmanager
async def dripping(gateway: GatewayProcess, count: int) -> AsyncIterator[None]:
    """Have so many clients that send a byte a second while the block lasts."""
    writers = [(await asyncio.open_connection(*gateway.address))[1] for _ in range(count)]

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(head("POST", "/predict", 1000))
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1)

    drips = [asyncio.create_task(drip(writer)) for writer in writers]
    assert await asyncio.to_thread(eventually, lambda: in_flight(gateway) == count)
    try:
        yield
    finally:
        for task, writer in zip(drips, writers, strict=True):
            task.cancel()
            writer.close()
        await asyncio.wait(drips)
    assert await asyncio.to_thread(eventually, lambda: in_flight(gateway) == 0)


def in_flight(gateway: GatewayProcess) -> float:
    return Scrape(gateway.metrics_url).value("immich_gateway_requests_in_flight")


def latency(gateway: GatewayProcess) -> float:
    """Return the median of 60 predictions, in seconds."""
    return sorted(predict(gateway.url, entries_for("clip-text"), text="猫").seconds for _ in range(60))[30]


def test_a_client_that_speaks_no_http_and_half_closes_leaves_no_descriptor_behind(gateway: GatewayProcess) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))

    requests.get(f"{gateway.url}/ping", timeout=60)
    before = descriptors()
    for _ in range(10):
        with connect(gateway) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"\xff\xd8\xff\xe0 no HTTP\r\n\r\n" * 10_000)
                client.shutdown(socket.SHUT_WR)
            read_all(client)
    assert eventually(lambda: descriptors() <= before + 2)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "more", "answered"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Y: " + b"z" * 995 + b"\r\n", True),
        (b"HTTP/1.1 200 OK\r\nX-Y: ", b"z" * 1000, True),
        (b"", b"\xff" * 1000, True),
        (CHUNKED + b"1;", b"z" * 1000, False),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"X-Y: " + b"z" * 995 + b"\r\n", False),
    ],
    ids=["headers", "a header", "no HTTP", "the line before a chunk", "trailers"],
)
def test_what_the_upstream_sends_without_end_is_bounded(
    gateway: GatewayProcess, silent: socket.socket, begin: bytes, more: bytes, *, answered: bool
) -> None:
    """The memory grew by 160 bytes for each byte: the error quoted all of it, and a pattern was sought in that."""
    growth = gateway.growth()
    with connect(gateway) as client:
        client.sendall(head("GET", "/endless"))
        with accepted(silent, b"/endless") as upstream, contextlib.suppress(OSError):
            upstream.settimeout(5)  # a gateway that reads no further lets the sender wait
            upstream.sendall(begin)
            for _ in range(32 << 10):
                upstream.sendall(more)
            pytest.fail("everything was read")
        answer = read_all(client)
    if answered:
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"sent headers of more than 131072 bytes" in answer
    assert growth() < FLAT
    assert is_well(gateway)


@contextlib.contextmanager
def accepted(listener: socket.socket, mark: bytes) -> Iterator[socket.socket]:
    """Give the connection over which a request with *mark* comes; others are left over from other tests."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            with contextlib.suppress(OSError):
                if mark in connection.recv(65536):
                    yield connection
                    return


def test_the_line_before_a_chunk_of_an_upload_is_bounded(hasty: GatewayProcess, silent: socket.socket) -> None:
    growth = hasty.growth()
    with connect(hasty) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        with pytest.raises(ConnectionError):
            client.sendall(b"z" * (64 << 20))
    assert growth() < FLAT
