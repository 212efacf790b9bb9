"""Take the README's pictures: ask a running gateway, look at mitmweb's flows in a headless Chromium.

Start the gateway first (make run WEB=1); it prints mitmweb's password. With --report also of what compare.py wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import requests
from toolbox.browser import BrowserError, Page, page
from toolbox.client import entries_for, predict

WIDTH: Final = 1280

ROWS: Final = "[...document.querySelectorAll('.flow-table tbody tr')]"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--password", required=True, help="mitmweb's password, as printed by make run WEB=1")
    command.add_argument("--web", default="http://127.0.0.1:8081", help="mitmweb's address (default: %(default)s)")
    command.add_argument("--url", default="http://127.0.0.1:3004", help="the gateway's address (default: %(default)s)")
    command.add_argument(
        "--images",
        type=Path,
        default=Path("tests/data/images"),
        help="folder of images to ask about (default: %(default)s)",
    )
    command.add_argument("--report", type=Path, help="a report of compare.py, to be pictured too")
    command.add_argument(
        "--output", type=Path, default=Path("docs/images"), help="folder for the pictures (default: %(default)s)"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(take(options))
    except (BrowserError, OSError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


def ask(url: str, images: Path) -> None:
    """Ask what an Immich server asks, and what goes wrong now and then."""
    receipt, portrait = (images / "zh_receipt.jpg").read_bytes(), (images / "astronaut.jpg").read_bytes()
    requests.get(f"{url}/ping", timeout=5)
    predict(url, entries_for("clip"), image=portrait)
    predict(url, entries_for("faces"), image=portrait)
    predict(url, entries_for("ocr"), image=receipt)
    predict(url, entries_for("ocr"), image=(images / "mixed_sign.webp").read_bytes())
    predict(url, entries_for("clip-text"), text="戴头盔的宇航员")
    predict(url, entries_for("ocr"), image=b"no image")
    predict(url, {"pet-detection": {"detection": {"modelName": "some-model"}}}, image=portrait)
    requests.get(f"{url}/docs", timeout=5)


async def take(options: argparse.Namespace) -> None:
    """Take all pictures. Raises `BrowserError`."""
    async with page() as tab:
        await tab.size(WIDTH, 460)
        await tab.open(f"{options.web}/?token={options.password}")
        await tab.wait_for("document.querySelector('.flow-table') != null")
        await run(tab, "view.flows.remove", "@all")
        await asyncio.to_thread(ask, options.url, options.images)
        await tab.wait_for(f"{ROWS}.some(row => row.innerText.includes('/docs'))")
        await save(tab, options.output / "flow-list.png")

        await tab.size(WIDTH, 500)
        await select(tab, "ocr PP-OCRv5_mobile", "Request")
        await save(tab, options.output / "request.png")
        await select(tab, "clip/visual", "Response")
        await save(tab, options.output / "answer-clip.png")
        await select(tab, "facial-recognition", "Response")
        await save(tab, options.output / "answer-faces.png")
        await select(tab, "400 The image", "Response")
        await save(tab, options.output / "answer-error.png")
        await tab.size(WIDTH, 720)
        await select(tab, "ocr PP-OCRv5_mobile", "Response")
        await save(tab, options.output / "answer-ocr.png")

        await run(tab, "immich.compare", "~comment 'ocr PP.* ms$'")
        await tab.wait_for(f"{ROWS}.filter(row => row.innerText.includes('lines match')).length == 2", 120)
        await tab.size(WIDTH, 900)
        await select(tab, "facial-recognition", "Response")
        await select(tab, "ocr PP-OCRv5_mobile", "Response")
        await tab.wait_for("document.querySelector('.contentview').innerText.includes('comparison with')")
        await tab.evaluate("document.querySelector('.flow-detail section').scrollTo(0, 1e6)")
        await save(tab, options.output / "comparison.png")

        if options.report:
            await tab.size(WIDTH, 960, scale=0.75)
            await tab.open(await asyncio.to_thread(lambda: options.report.resolve().as_uri()))
            await tab.wait_for("document.querySelectorAll('section').length > 0")
            await save(tab, options.output / "report.png")


async def run(tab: Page, command: str, *arguments: str) -> None:
    """Run a mitmproxy command as mitmweb's command bar does. Raises `BrowserError`."""
    body = json.dumps(json.dumps({"arguments": arguments}))
    answer = await tab.evaluate(
        f"fetch('/commands/{command}', {{method: 'POST', body: {body}, headers: {{'Content-Type': 'application/json',"
        "'X-XSRFToken': document.cookie.match(/_mitmproxy_xsrf=([^;]+)/)[1]}}).then(answer => answer.json())"
    )
    if "error" in answer:
        raise BrowserError(f"{command}: {answer['error']}")


async def select(tab: Page, comment: str, pane: str) -> None:
    """Open the first flow whose row contains *comment*, at the *pane* "Request" or "Response"."""
    await tab.click(f"{ROWS}.find(row => row.innerText.includes({json.dumps(comment)}))")
    await tab.click(f"[...document.querySelectorAll('.flow-detail nav a')].find(each => each.innerText == '{pane}')")
    await tab.wait_for(f"document.querySelector('.flow-detail nav a.active').innerText == '{pane}'")
    await tab.wait_for("document.querySelector('.contentview h5')?.innerText.startsWith('Immich')")


async def save(tab: Page, file: Path) -> None:
    """Wait until nothing loads any more, then save the picture."""
    await tab.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)))")
    print(f"{file}  {await tab.screenshot(file) // 1024} kB")


if __name__ == "__main__":
    sys.exit(main())
