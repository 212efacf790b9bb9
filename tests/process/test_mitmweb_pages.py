"""mitmweb's pages in a real browser: the list shows the comments, a click shows the views."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import browser
import pytest
from mitmweb import Mitmweb, running_mitmweb
from places import DATA
from recorder import Recorder, recording_upstream
from screenshots import ROWS, fit, open_report, run, select
from small_models import write_model, write_ocr_route

from harness.ports import free_ports
from immich_triton.immich.ml_client import Answer, entries_for, predict
from immich_triton.inspect import previews
from immich_triton.inspect.comparing import compare
from immich_triton.inspect.comparison_report import render
from immich_triton.inspect.comparisons import KEYS, Album, Outcome, Picture

PORTRAIT = (DATA / "images" / "astronaut.jpg").read_bytes()

pytestmark = pytest.mark.skipif(browser.find() is None, reason="no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def stock() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        recorder.answer = (200, (DATA / "stock" / "astronaut.jpg.faces.json").read_bytes())
        yield recorder


@pytest.fixture(scope="module")
def web(stock: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mitmweb]:
    """A gateway with a route for OCR, no Triton behind it, and faces that pass through."""
    directory = tmp_path_factory.mktemp("mitmweb")
    models = directory / "models"
    write_ocr_route(write_model(models, "ocr"))
    triton = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_mitmweb(directory, models=models, triton_url=triton, upstream=stock.url, immich_deadline=1) as running:
        yield running


@pytest.fixture
async def tab(web: Mitmweb) -> AsyncIterator[browser.Page]:
    async with browser.page() as tab:
        await tab.size(1280, 700)
        await tab.open(web.address)
        await tab.wait_for("document.querySelector('.flow-table') != null")
        await run(tab, "view.flows.remove", "@all")
        await asyncio.to_thread(predict, web.gateway.url, entries_for("faces"), image=PORTRAIT)
        await asyncio.to_thread(predict, web.gateway.url, entries_for("ocr"), image=PORTRAIT)
        yield tab
        assert tab.exceptions == []


async def test_the_list_tells_the_story_and_the_views_render(tab: browser.Page) -> None:
    # A row is there as soon as a request begins; its comment comes with the answer.
    comments = await tab.wait_for(
        "(cells => cells.length == 2 && cells.every(text => text) && cells)"
        "([...document.querySelectorAll('td.col-comment')].map(cell => cell.innerText))"
    )
    assert comments[0].startswith("facial-recognition buffalo_l passed through · ")
    assert comments[1] == "503 waiting for Triton · ocr PP-OCRv5_mobile → ocr"
    # All of it is to be read: mitmweb's own style would cut it off.
    cut = "[...document.querySelectorAll('td.col-comment')].some(cell => cell.scrollWidth > cell.clientWidth)"
    assert not await tab.evaluate(cut)
    markers = await tab.evaluate("[...document.querySelectorAll('.marker')].map(each => each.innerText)")
    assert markers == ["", "🔴"]

    text = "document.querySelector('.contentview pre').innerText"
    await select(tab, "facial-recognition", "Request")
    await tab.wait_for(f"{text}.includes('image: JPEG, 1440 x 1440 pixels')")
    await select(tab, "facial-recognition", "Response")
    await tab.wait_for(f"{text}.includes('1: score 0.822, box 509,158 761,502')")
    await select(tab, "503 waiting", "Response")
    await tab.wait_for(f"{text}.includes('error: ocr gave no answer within')")


async def test_a_content_view_is_shown_whole(tab: browser.Page, web: Mitmweb) -> None:
    await select(tab, "503 waiting", "Response")
    text = "document.querySelector('.contentview pre')"
    await tab.wait_for(f"{text}.innerText.includes('error: ocr gave no answer within')")
    reason = str(web.shown(web.last(), "response")[1])
    assert len(reason) > 80, "it has to be longer than a line"
    assert await tab.evaluate(f"{text}.scrollWidth <= {text}.clientWidth"), "its lines are cut off"

    await tab.size(1280, 460)
    await select(tab, "503 waiting", "Request")
    pane = "document.querySelector('.flow-detail section')"
    assert await tab.evaluate(f"{pane}.scrollHeight > {pane}.clientHeight"), "the page is too low for it"
    await fit(tab)
    assert await tab.evaluate(f"{pane}.scrollHeight == {pane}.clientHeight")
    assert await tab.evaluate(f"{text}.getBoundingClientRect().bottom <= {pane}.getBoundingClientRect().bottom")


async def test_a_long_comment_is_shown_whole(tab: browser.Page, web: Mitmweb) -> None:
    await asyncio.to_thread(web.command, "flow.comment", "~comment passed", f"facial-recognition {'and so on ' * 12}")
    await select(tab, "and so on", "Response")
    cell = "document.querySelector('tr.selected td.col-comment')"
    assert await tab.evaluate(f"{cell}.scrollWidth > {cell}.clientWidth")
    await fit(tab, comment=True)
    assert await tab.evaluate(f"{cell}.scrollWidth <= {cell}.clientWidth")


async def test_the_picture_of_a_report_shows_a_face(tab: browser.Page, tmp_path: Path) -> None:
    album = Album()
    for number, (task, name) in enumerate(
        [("ocr", "zh_receipt.jpg"), ("ocr", "zh_receipt.jpg"), ("faces", "astronaut.jpg")]
    ):
        answer = Answer(200, json.loads((DATA / "stock" / f"{name}.{task}.json").read_text()), 0.1)
        comparison = compare(KEYS[task], answer.body, answer.body)
        photo = previews.thumbnail((DATA / "images" / name).read_bytes())
        album.add(Picture(Path(f"{number}.jpg"), photo, (Outcome(task, answer, answer, comparison),)))
    report = tmp_path / "report.html"
    report.write_text(render(album, [], "three photos"))
    await open_report(tab, report)
    heads = await tab.evaluate("[...document.querySelectorAll('section h2')].map(each => each.firstChild.textContent)")
    assert heads == ["0.jpg", "2.jpg"]
    assert await tab.evaluate("document.documentElement.scrollHeight <= innerHeight")
    report.write_text(render(Album(), [], "no photos"))
    with pytest.raises(browser.BrowserError, match="shows no face"):
        await open_report(tab, report)


async def test_comments_appear_while_one_looks(tab: browser.Page, web: Mitmweb) -> None:
    await asyncio.to_thread(predict, web.gateway.url, {"pet-detection": {}}, image=PORTRAIT)
    await tab.wait_for(f"{ROWS}.some(row => row.innerText.includes('pet-detection passed through'))")
