"""The gateway's own client of the stock ML, for the part of a split request that is not ours."""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import orjson
from mitmproxy import ctx

from immich_triton.core.errors import ProtocolError
from immich_triton.core.redaction import redact
from immich_triton.core.request_id import HEADER, current_id
from immich_triton.immich.api import read_at_most

ANSWER_LIMIT: Final = 32 << 20
"""Bytes of an answer that are taken. Thousands of faces have 10 kB each; text and vectors are far smaller."""


class UpstreamAnswer(Exception):  # noqa: N818 - an answer that ends the request, not a fault of ours
    """The upstream refused its part; its answer becomes the answer to the whole request."""

    def __init__(self, status: int, content_type: str, body: bytes) -> None:
        super().__init__(f"the stock ML answered {status}")
        self.status = status
        self.content_type = content_type
        self.body = body


async def predict(base: str, content_type: str, body: bytes, *, within: float) -> dict[str, Any]:
    """POST *body* to ``base/predict`` on a fresh connection and return the JSON object.

    Raises `UpstreamAnswer` when it answers with an error, `ProtocolError` (502, 504) when it does not answer, or in a
    way that no Immich ML does: with a redirect, with more than `ANSWER_LIMIT` bytes, compressed unasked. (The library
    bounds the head: 128 headers of 8 kB.)
    """
    if within <= 0:  # which aiohttp takes for "any time"
        raise ProtocolError(504, f"The stock Immich ML at {base} could not be asked: the time of the request is over")
    connector = aiohttp.TCPConnector(force_close=True, ssl=not ctx.options.ssl_insecure)
    timeout = aiohttp.ClientTimeout(total=within, connect=10)
    # A few compressed kilobytes could unpack to gigabytes.
    headers = {"content-type": content_type, "accept-encoding": "identity"}
    if known := current_id():
        headers[HEADER] = known
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            session.post(f"{base}/predict", data=body, headers=headers, allow_redirects=False) as response,
        ):
            answer = await read_at_most(response, ANSWER_LIMIT + 1)
    except TimeoutError as error:
        raise ProtocolError(504, f"The stock Immich ML at {base} did not answer within {within:g} s") from error
    except aiohttp.ClientError as error:
        why = redact(str(error))  # which may quote what it got
        raise ProtocolError(502, f"The stock Immich ML at {base} did not answer: {why}") from error
    if strange := _what_is_strange(response, answer):
        raise ProtocolError(502, f"The stock Immich ML at {base} answered {strange}")
    if response.status != 200:
        raise UpstreamAnswer(response.status, response.headers.get("content-type", "text/plain"), answer)
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ProtocolError(502, f"The stock Immich ML at {base} answered what is no JSON object")
    return parsed


def _what_is_strange(response: aiohttp.ClientResponse, answer: bytes) -> str:
    """Return what makes an answer none of Immich's ML, and what to do; nothing when all is well."""
    if len(answer) > ANSWER_LIMIT:
        return f"with more than {ANSWER_LIMIT} bytes"
    if 300 <= response.status < 400:
        return f"with a redirect ({response.status}), which is not followed; correct its address (--upstream, --mode)"
    if (coding := response.headers.get("content-encoding", "identity").lower()) != "identity":
        return f"compressed ({redact(coding)}), which was not asked for; do not compress between the two"
    return ""
