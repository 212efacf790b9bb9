"""The gateway's own client of the stock ML."""

from __future__ import annotations

import pytest
from mitmproxy.test import taddons, tutils

from immich_triton.protocol import ProtocolError
from immich_triton.upstream import address_of, predict


@pytest.mark.parametrize(
    ("host", "address"), [("stock", "http://stock:3003"), ("::1", "http://[::1]:3003")], ids=["a name", "IPv6"]
)
def test_the_address_of_a_request(host: str, address: str) -> None:
    assert address_of(tutils.treq(host=host, port=3003, scheme=b"http")) == address


async def test_nobody_is_asked_when_the_time_is_over() -> None:
    with taddons.context(), pytest.raises(ProtocolError, match="the time of the request is over") as caught:
        await predict("http://127.0.0.1:9", "text/plain", b"", within=0.0)
    assert caught.value.status == 504
