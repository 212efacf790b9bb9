"""Take the documentation's pictures: ask a running gateway, look at mitmweb's flows in a headless Chromium.

Start the gateway first (immich-triton run --inspect), with OCR, CLIP and faces routed and a stock ML behind it; it
prints mitmweb's password. All flows that mitmweb holds are removed: save what is dear before. With --report also of
what immich-triton compare wrote about photos of which one shows a face.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from browser import BrowserError, Page, page

from immich_triton.core import direct_requests
from immich_triton.immich.ml_client import entries_for, predict

WIDTH: Final = 1280
DETAIL: Final = 640
"""Width of the pane beside the flow list, in pixels, while the list needs the room."""

HEIGHT: Final = 480

VIEWS: Final = (
    ("request", "ocr PP-OCRv5_mobile", "Request"),
    ("answer-clip", "clip/visual", "Response"),
    ("answer-faces", "facial-recognition", "Response"),
    ("answer-error", "400 The image", "Response"),
    ("answer-ocr", "ocr PP-OCRv5_mobile", "Response"),
)
"""Names of pictures, with what stands in the comment of the flow and the pane that is open."""

ROWS: Final = "[...document.querySelectorAll('.flow-table tbody tr')]"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument(
        "--password", required=True, help="mitmweb's password, as printed by immich-triton run --inspect"
    )
    command.add_argument("--web", default="http://127.0.0.1:8081", help="mitmweb's address (default: %(default)s)")
    command.add_argument("--url", default="http://127.0.0.1:3004", help="the gateway's address (default: %(default)s)")
    command.add_argument(
        "--images",
        type=Path,
        default=Path("tests/data/images"),
        help="folder of images to ask about (default: %(default)s)",
    )
    command.add_argument("--report", type=Path, help="a report of immich-triton compare, to be pictured too")
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
    url = url.rstrip("/")
    direct_requests.get(f"{url}/ping", timeout=5)
    predict(url, entries_for("clip"), image=portrait)
    predict(url, entries_for("faces"), image=portrait)
    predict(url, entries_for("ocr"), image=receipt)
    predict(url, entries_for("ocr"), image=(images / "mixed_sign.webp").read_bytes())
    predict(url, entries_for("clip-text"), text="戴头盔的宇航员")
    predict(url, entries_for("ocr"), image=b"no image")
    predict(url, {"pet-detection": {"detection": {"modelName": "some-model"}}}, image=portrait)
    direct_requests.get(f"{url}/docs", timeout=5)


async def take(options: argparse.Namespace) -> None:
    """Take all pictures. Raises `BrowserError`."""
    async with page() as tab:
        await tab.size(WIDTH, HEIGHT)
        await tab.open(f"{options.web}/?token={options.password}")
        await tab.wait_for("document.querySelector('.flow-table') != null")
        # Twice: the first answers take the time that warming up takes.
        for _ in range(2):
            await run(tab, "view.flows.remove", "@all")
            await asyncio.to_thread(ask, options.url, options.images)
        await tab.wait_for(f"{ROWS}.some(row => row.innerText.includes('/docs'))")
        # A row is there as soon as a request begins; its comment comes with the answer.
        await tab.wait_for("[...document.querySelectorAll('td.col-comment')].every(cell => cell.innerText)")
        await save(tab, options.output / "flow-list.png")

        for name, comment, pane in VIEWS:
            await select(tab, comment, pane)
            await fit(tab)
            await save(tab, options.output / f"{name}.png")

        await run(tab, "immich.compare", "~comment 'ocr PP.* ms$'")
        await tab.wait_for(f"{ROWS}.filter(row => row.innerText.includes('lines match')).length == 2", 120)
        # The pane shows the comparison once it is opened anew.
        await select(tab, "facial-recognition", "Response")
        await select(tab, "ocr PP-OCRv5_mobile", "Response")
        await tab.wait_for("document.querySelector('.contentview').innerText.includes('comparison with')")
        await fit(tab, comment=True)
        await save(tab, options.output / "comparison.png")

        if options.report:
            await open_report(tab, options.report)
            await save(tab, options.output / "report.png")


async def fit(tab: Page, *, comment: bool = False) -> None:
    """Make the page as high as the open pane needs, and with *comment* as wide as the selected row's comment needs."""
    await tab.size(WIDTH, HEIGHT)
    width = WIDTH
    if comment:
        await tab.evaluate(f"document.querySelector('.flow-detail').style.flex = '0 0 {DETAIL}px'")
        cell = "document.querySelector('tr.selected td.col-comment')"
        width += 10 + await tab.evaluate(f"{cell}.scrollWidth - {cell}.clientWidth")
        await tab.size(width, HEIGHT)
    pane = "document.querySelector('.flow-detail section')"
    await tab.size(width, HEIGHT + await tab.evaluate(f"{pane}.scrollHeight - {pane}.clientHeight"))


async def open_report(tab: Page, report: Path) -> None:
    """Show a report's summary, the photo that differs most, and the first with a face. Raises `BrowserError`."""
    await tab.size(WIDTH, HEIGHT)
    await tab.open(await asyncio.to_thread(lambda: report.resolve().as_uri()))
    await tab.wait_for("document.readyState == 'complete'")
    # Only faces are compared by cosine, and only what was found by either side makes a table.
    faces = "section => [...section.querySelectorAll('th')].some(head => head.innerText == 'cosine')"
    found = await tab.evaluate(
        f"(() => {{ const all = [...document.querySelectorAll('section')]; const face = all.find({faces});"
        "if (face) all.slice(1).filter(each => each != face).forEach(each => each.remove()); return face != null; })()"
    )
    if not found:
        raise BrowserError(f"{report} shows no face; compare also a photo with one: tests/data/images/astronaut.jpg")
    await tab.size(WIDTH, await tab.evaluate("document.documentElement.scrollHeight"))
    await tab.wait_for("[...document.images].every(image => image.complete)")
    await tab.size(WIDTH, await tab.evaluate("document.documentElement.scrollHeight"))


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
