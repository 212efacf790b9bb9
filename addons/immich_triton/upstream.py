"""The gateway's own client of the stock ML, for the part of a split request that is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from mitmproxy import ctx

from immich_triton.protocol import ProtocolError
from immich_triton.request_id import HEADER, current_id

if TYPE_CHECKING:
    from mitmproxy.http import Request


class UpstreamAnswer(Exception):  # noqa: N818 - an answer that ends the request, not a fault of ours
    """The upstream refused its part; its answer becomes the answer to the whole request."""

    def __init__(self, status: int, content_type: str, body: bytes) -> None:
        super().__init__(f"the stock ML answered {status}")
        self.status = status
        self.content_type = content_type
        self.body = body


def address_of(request: Request) -> str:
    """Return the upstream's address, ``http://host:port``, that a request would go to."""
    host = f"[{request.host}]" if ":" in request.host else request.host
    return f"{request.scheme}://{host}:{request.port}"


async def predict(base: str, content_type: str, body: bytes, *, within: float) -> dict[str, Any]:
    """POST *body* to ``base/predict`` on a fresh connection and return the JSON object.

    Raises `UpstreamAnswer` when it answers with an error, `ProtocolError` (502, 504) when it does not answer.
    """
    if within <= 0:  # which aiohttp takes for "any time"
        raise ProtocolError(504, f"The stock Immich ML at {base} could not be asked: the time of the request is over")
    connector = aiohttp.TCPConnector(force_close=True, ssl=not ctx.options.ssl_insecure)
    timeout = aiohttp.ClientTimeout(total=within, connect=10)
    headers = {"content-type": content_type}
    if known := current_id():
        headers[HEADER] = known
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(f"{base}/predict", data=body, headers=headers) as response,
        ):
            answer = await response.read()
    except TimeoutError as error:
        raise ProtocolError(504, f"The stock Immich ML at {base} did not answer within {within:g} s") from error
    except aiohttp.ClientError as error:
        raise ProtocolError(502, f"The stock Immich ML at {base} did not answer: {error}") from error
    if response.status != 200:
        raise UpstreamAnswer(response.status, response.headers.get("content-type", "text/plain"), answer)
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ProtocolError(502, f"The stock Immich ML at {base} answered what is no JSON object")
    return parsed
