"""A browser that hangs, or is gone, is told in words; what one does when all is well: test_mitmweb_pages.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from browser import BrowserError, Page


@asynccontextmanager
async def tab_of(hangs: bool) -> AsyncIterator[Page]:
    """Give the tab of a browser that takes a question and answers nothing, or ends instead."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        if hangs:
            await socket.receive()
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}") as one:
            yield Page(one, reply_seconds=0.2)
    finally:
        await runner.cleanup()


async def test_a_browser_that_does_not_answer() -> None:
    async with tab_of(hangs=True) as tab:
        with pytest.raises(BrowserError, match=r"^Page\.navigate: no reply within 0\.2 s"):
            await tab.open("about:blank")


async def test_a_browser_that_is_gone() -> None:
    async with tab_of(hangs=False) as tab:
        with pytest.raises(BrowserError, match=r"^Page\.navigate: the browser closed the connection"):
            await tab.open("about:blank")
