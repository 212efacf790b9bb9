"""Whose id a line of the log carries."""

from __future__ import annotations

import asyncio

from mitmproxy.test import tflow

from immich_triton.core.request_id import RequestIds, current_id, detached


async def test_what_serves_everybody_does_not_carry_the_id_of_the_request_that_started_it() -> None:
    RequestIds().requestheaders(flow := tflow.tflow())
    mine = current_id()
    assert mine == flow.request.headers["X-Request-ID"]

    async def work() -> tuple[str, str]:
        before = current_id()
        await asyncio.sleep(0)
        return before, current_id()

    assert await detached(work(), "a probe") == ("", "")
    assert await asyncio.create_task(work()) == (mine, mine)
    assert current_id() == mine
