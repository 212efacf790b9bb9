"""The gateway's own client of the stock ML."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest
from mitmproxy.test import taddons, tutils

from immich_triton.core.errors import ProtocolError
from immich_triton.ml.upstream import ANSWER_LIMIT, UpstreamAnswer, predict
from immich_triton.proxy.targets import address_of


@pytest.mark.parametrize(
    ("host", "address"), [("stock", "http://stock:3003"), ("::1", "http://[::1]:3003")], ids=["a name", "IPv6"]
)
def test_the_address_of_a_request(host: str, address: str) -> None:
    assert address_of(tutils.treq(host=host, port=3003, scheme=b"http")) == address


async def test_nobody_is_asked_when_the_time_is_over() -> None:
    with taddons.context(), pytest.raises(ProtocolError, match="the time of the request is over") as caught:
        await predict("http://127.0.0.1:9", "text/plain", b"", within=0.0)
    assert caught.value.status == 504


@contextlib.asynccontextmanager
async def answering(pieces: Iterator[bytes]) -> AsyncIterator[str]:
    """Answer every request with *pieces*, for as long as somebody reads them; gives the address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def endless(head: bytes, piece: bytes) -> Iterator[bytes]:
    """Yield *piece* again and again, but fail when far more is taken than anybody may keep."""
    yield head
    for _ in range(4 * ANSWER_LIMIT // len(piece)):
        yield piece
    pytest.fail("everything was read")


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        (endless(OK, b"X-Y: " + b"z" * 1000 + b"\r\n"), "did not answer"),
        (endless(OK + b"X-Y: ", b"z" * 1000), "did not answer"),
        (endless(OK + b"Connection: close\r\n\r\n", bytes(1 << 20)), f"answered with more than {ANSWER_LIMIT} bytes"),
        (
            iter([OK + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", zlib.compress(bytes(1 << 20))]),
            "answered compressed (gzip), which was not asked for",
        ),
        (
            iter([b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"]),
            "answered with a redirect (307), which is not followed",
        ),
    ],
    ids=["headers without end", "a header without end", "a body without end", "compressed", "a redirect"],
)
async def test_what_no_immich_ml_answers_is_refused_in_bounded_memory(pieces: Iterator[bytes], says: str) -> None:
    with taddons.context():
        async with answering(pieces) as base:
            with pytest.raises(ProtocolError) as caught:
                await predict(base, "text/plain", b"x", within=60)
    assert caught.value.status == 502
    assert says in str(caught.value.detail)
    assert len(str(caught.value.detail)) < 500


async def test_an_error_of_the_upstream_is_its_own_answer() -> None:
    pieces = iter([b"HTTP/1.1 422 No\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno"])
    with taddons.context():
        async with answering(pieces) as base:
            with pytest.raises(UpstreamAnswer) as caught:
                await predict(base, "text/plain", b"x", within=60)
    assert (caught.value.status, caught.value.body) == (422, b"no")


async def test_a_large_answer_arrives_whole() -> None:
    body = b'{"text": "' + b"x" * (8 << 20) + b'"}'
    pieces = iter([OK + b"Content-Length: %d\r\n\r\n" % len(body), body])
    with taddons.context():
        async with answering(pieces) as base:
            assert len((await predict(base, "text/plain", b"x", within=60))["text"]) == 8 << 20
