"""Drive a headless Chromium by its DevTools protocol (CDP), for tests and screenshots of pages.

Needs nothing but a Chromium on the machine: ``apt-get install chromium``. CDP is JSON over a WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

START_SECONDS: Final = 60.0
REPLY_SECONDS: Final = 60.0

FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # it would need a user other than root, or privileges that containers lack
    "--disable-gpu",
    "--disable-dev-shm-usage",  # Triton needs the shared memory
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--hide-scrollbars",
)


class BrowserError(RuntimeError):
    """There is no browser, or the page did not do what was waited for."""


def find() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Page:
    """One tab. Every method waits until the browser has answered, *reply_seconds* at most."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, reply_seconds: float = REPLY_SECONDS) -> None:
        self._socket = socket
        self._reply_seconds = reply_seconds
        self._next = 0
        self.exceptions: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a CDP *method* and return its result. Raises `BrowserError`."""
        self._next += 1
        try:
            await self._socket.send_json({"id": self._next, "method": method, "params": parameters})
            async with asyncio.timeout(self._reply_seconds):
                while (message := await self._message(method)).get("id") != self._next:
                    self._note(message)
        except TimeoutError:
            raise BrowserError(f"{method}: no reply within {self._reply_seconds:g} s; does the browser hang?") from None
        except aiohttp.ClientError as error:
            raise BrowserError(f"{method}: the browser is gone: {error}") from error
        if "error" in message:
            raise BrowserError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    async def _message(self, method: str) -> dict[str, Any]:
        """Return the next message. Raises `BrowserError` when the connection is at its end."""
        received = await self._socket.receive()
        if received.type is not aiohttp.WSMsgType.TEXT:
            raise BrowserError(f"{method}: the browser closed the connection; did it crash?")
        message: dict[str, Any] = json.loads(received.data)
        return message

    async def size(self, width: int, height: int, scale: float = 1.0) -> None:
        """Set the size of the window in CSS pixels; *scale* device pixels for each."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    async def open(self, url: str) -> None:
        """Go to *url*."""
        result = await self.call("Page.navigate", url=url)
        if "errorText" in result:
            raise BrowserError(f"{url}: {result['errorText']}")

    async def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression; awaits promises. Raises `BrowserError` when it throws."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    async def wait_for(self, script: str, seconds: float = 30.0) -> Any:
        """Wait until a JavaScript expression is true, and return its value. Raises `BrowserError`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (value := await self.evaluate(script)):
            if asyncio.get_running_loop().time() > deadline:
                text = await self.evaluate("document.body.innerText.slice(0, 2000)")
                raise BrowserError(f"{script} did not become true within {seconds:g} s; the page says:\n{text}")
            await asyncio.sleep(0.05)
        return value

    async def click(self, script: str) -> None:
        """Click, with the mouse, in the middle of the element that a JavaScript expression gives."""
        await self.wait_for(f"({script}) != null")
        x, y = await self.evaluate(
            f"(() => {{ const element = {script}; element.scrollIntoView({{block: 'nearest'}});"
            "const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def screenshot(self, file: Path) -> int:
        """Save what the window shows as PNG, and return the size of the file in bytes."""
        result = await self.call("Page.captureScreenshot", format="png")
        return await asyncio.to_thread(file.write_bytes, base64.b64decode(result["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        """Keep what the page's scripts failed at."""
        if message.get("method") == "Runtime.exceptionThrown":
            self.exceptions.append(json.dumps(message["params"]["exceptionDetails"].get("exception", {})))


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    """Start a browser with an empty profile, give its one tab, stop it at the end. Raises `BrowserError`."""
    program = find()
    if program is None:
        raise BrowserError("no Chromium on this machine; install it, for example with: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port = await _port(process, Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    targets = await response.json()
                address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    tab = Page(socket)
                    await tab.call("Page.enable")
                    await tab.call("Runtime.enable")
                    yield tab
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)


async def _port(process: subprocess.Popen[bytes], file: Path) -> int:
    """Wait until the browser says on which port it listens."""
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        if process.poll() is not None:
            raise BrowserError(f"the browser ended with exit code {process.returncode}")
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int((await asyncio.to_thread(file.read_text)).splitlines()[0])
        await asyncio.sleep(0.05)
    raise BrowserError(f"the browser did not start within {START_SECONDS:g} s")
