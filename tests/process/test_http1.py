"""Trailers and interim responses, which mitmproxy's HTTP/1 does not know. All on real sockets."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from gateway_process import GatewayProcess, running_gateway
from raw_upstream import PAUSE, RawUpstream, raw_upstream
from stand_in_triton import stand_in_triton, write_routes

from immich_triton.immich.ml_client import encode, entries_for, predict
from immich_triton.proxy.http1 import LONGEST, MOST_INTERIM

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
UPLOAD = b"POST /x HTTP/1.1\r\nHost: h\r\n" + CHUNKED
BODY = b"4\r\nbody\r\n0\r\n"
TRAILERS = b"X-Checksum: abc\r\nContent-Length: 99\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\n" + CHUNKED
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[RawUpstream]:
    with raw_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(server: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "models").mkdir()
    with running_gateway(
        directory, models=directory / "models", triton_url="http://127.0.0.1:9", upstream=server.url
    ) as process:
        yield process


@pytest.fixture
def upstream(server: RawUpstream, gateway: GatewayProcess) -> Iterator[RawUpstream]:
    server.seen.clear()
    yield server
    log = gateway.whole_log()
    assert "crashed" not in log
    assert "Traceback" not in log


def exchange(gateway: GatewayProcess, pieces: Sequence[bytes], end: bytes) -> bytes:
    """Send *pieces* one after the other, and return what comes back up to *end*, or to the end of the connection."""
    with socket.create_connection(gateway.address, 60) as client:
        answer = b""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
                time.sleep(PAUSE)
            while not (end and answer.endswith(end)) and (data := client.recv(65536)):
                answer += data
        return answer


ANSWERS = {
    "at once": [OK_CHUNKED + BODY + TRAILERS],
    "in pieces": [OK_CHUNKED, BODY, TRAILERS[:20], TRAILERS[20:]],
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_with_trailers_ends_and_loses_them(
    gateway: GatewayProcess, upstream: RawUpstream, answer: list[bytes]
) -> None:
    upstream.answer = answer
    received = exchange(gateway, [GET], end=b"0\r\n\r\n")
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\n")
    assert body == BODY + b"\r\n"


def test_the_connection_goes_on_after_trailers(gateway: GatewayProcess, upstream: RawUpstream) -> None:
    upstream.answer = ANSWERS["at once"]
    with socket.create_connection(gateway.address, 60) as client:
        for _ in range(2):
            client.sendall(GET)
            received = b""
            while not received.endswith(BODY + b"\r\n"):
                data = client.recv(65536)
                assert data
                received += data
    assert len(upstream.seen) == 2


UPLOADS = {
    "at once": [UPLOAD + BODY + TRAILERS],
    "in pieces": [UPLOAD, BODY, TRAILERS[:20], TRAILERS[20:]],
}


@pytest.mark.parametrize("pieces", UPLOADS.values(), ids=UPLOADS.keys())
def test_an_upload_with_trailers_arrives_without_them(
    gateway: GatewayProcess, upstream: RawUpstream, pieces: list[bytes]
) -> None:
    upstream.answer = [OK]
    assert exchange(gateway, pieces, end=b"ok").startswith(b"HTTP/1.1 200 OK\r\n")
    (request,) = upstream.seen
    assert request.endswith(b"\r\n\r\n" + BODY + b"\r\n")
    assert b"checksum" not in request.lower()


ENDLESS = {
    "trailers": b"4\r\nbody\r\n0\r\n" + b"X: y\r\n" * (LONGEST // 6 + 10),
    "one trailer": b"4\r\nbody\r\n0\r\nX: " + b"y" * (LONGEST + 10),
    "a chunk's header": b"4;" + b"x" * (LONGEST + 10),
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_has_no_end_is_not_kept(gateway: GatewayProcess, upstream: RawUpstream, body: bytes) -> None:
    upstream.answer = [OK_CHUNKED + body]
    assert b"\r\n0\r\n" not in exchange(gateway, [GET], end=b"")
    upstream.answer = [OK]
    # The connection ends, although neither side has closed it.
    assert b" 200 " not in exchange(gateway, [UPLOAD + body], end=b"")


def test_trailers_that_are_none_end_the_connection(gateway: GatewayProcess, upstream: RawUpstream) -> None:
    upstream.answer = [OK_CHUNKED + BODY + b"no trailer\r\n\r\n"]
    assert b"\r\n0\r\n" not in exchange(gateway, [GET], end=b"")


INTERIM = {
    "103": [HINT, OK],
    "103 at once": [HINT + OK],
    "103 in pieces": [HINT[:12], HINT[12:30], HINT[30:] + OK[:20], OK[20:]],
    "100 and 102": [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n" + OK],
    "many": [HINT * MOST_INTERIM + OK],
}


@pytest.mark.parametrize("answer", INTERIM.values(), ids=INTERIM.keys())
def test_an_answer_after_interim_ones_arrives_and_so_do_they(
    gateway: GatewayProcess, upstream: RawUpstream, answer: list[bytes]
) -> None:
    upstream.answer = answer
    received = exchange(gateway, [GET], end=b"ok")
    heads = [head for head in received.split(b"\r\n\r\n") if head.startswith(b"HTTP/1.1 ")]
    expected = [head for head in b"".join(answer).split(b"\r\n\r\n") if head.startswith(b"HTTP/1.1 ")]
    assert heads[:-1] == expected[:-1]
    assert heads[-1].startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nok")


def test_an_interim_answer_before_that_to_a_prediction(gateway: GatewayProcess, upstream: RawUpstream) -> None:
    upstream.answer = [HINT, OK]
    content_type, body = encode(entries_for("ocr"), image=b"image")
    head = f"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    received = exchange(gateway, [head.encode() + body], end=b"ok")
    assert received.startswith(HINT + b"HTTP/1.1 200 OK\r\n")


def test_the_upstreams_part_of_a_split_request_may_have_both(upstream: RawUpstream, tmp_path: Path) -> None:
    body = b'{"facial-recognition":[]}'
    upstream.answer = [HINT, OK_CHUNKED, b"%x\r\n%s\r\n0\r\n" % (len(body), body), b"X-Checksum: abc\r\n\r\n"]
    entries = {**entries_for("ocr"), **entries_for("faces")}
    with (
        stand_in_triton() as triton,
        running_gateway(
            tmp_path, models=write_routes(tmp_path / "models"), triton_url=triton.url, upstream=upstream.url
        ) as gateway,
    ):
        answer = predict(gateway.url, entries, image=b"image", timeout=60)
    assert (answer.status, answer.body["facial-recognition"]) == (200, [])
    assert "ocr" in answer.body


def test_who_speaks_http_1_0_gets_the_answer_alone(gateway: GatewayProcess, upstream: RawUpstream) -> None:
    upstream.answer = [HINT, OK]
    received = exchange(gateway, [b"GET /x HTTP/1.0\r\nHost: h\r\n\r\n"], end=b"ok")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


BROKEN = {
    "endless": HINT * (MOST_INTERIM + 1) + OK,
    "no header": b"HTTP/1.1 103 Early Hints\r\nno header\r\n\r\n" + OK,
    "a header that smuggles": b"HTTP/1.1 103 Early Hints\r\nContent-Length : 3\r\n\r\n" + OK,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
def test_interim_answers_that_are_none_become_502(
    gateway: GatewayProcess, upstream: RawUpstream, answer: bytes
) -> None:
    upstream.answer = [answer]
    received = exchange(gateway, [GET], end=b"")
    assert received.removeprefix(HINT * MOST_INTERIM).startswith(b"HTTP/1.1 502 ")
    assert b"The stock Immich ML at" in received
