"""Refresh OCR and Refresh CLIP in the menus of the web app: Chromium, the site, a real Redis, and Immich's BullMQ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import browser
import pytest
import pytest_asyncio
from gateway_process import GatewayProcess
from immich_photos import KEY, Photo, photo_id
from immich_queues import Redis, running_redis, running_worker
from immich_site import File, ImmichSite
from places import DATA
from site_process import running_web

pytestmark = [
    pytest.mark.skipif(browser.find() is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),  # one browser serves all: its start takes longer than a test
]

PAGE: Final = (DATA / "app" / "app.html").read_bytes()
APP: Final = (DATA / "app" / "app.js").read_bytes()
STRICT: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'"
}

VIEWER: Final = "#immich-asset-viewer"
SELECTION: Final = "#asset-selection-app-bar"
TOASTS: Final = "[...document.querySelectorAll('#immich-triton-toasts > div')].map(each => each.textContent)"

FRAMES: Final = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
"""After two frames our script has seen what the app did."""


@pytest.fixture(scope="module")
def queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(queues: Redis, shared_site: ImmichSite) -> Iterator[None]:
    with running_worker("bullmq-5-80", queues.port, shared_site.url):
        yield


@pytest.fixture(scope="module")
def web(
    shared_site: ImmichSite, queues: Redis, worker: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with running_web(tmp_path_factory.mktemp("web"), shared_site.url, web_redis_url=queues.url) as process:
        yield process


@pytest.fixture
def app(site: ImmichSite) -> ImmichSite:
    """Give the double with the stand-in for the web app, and five photos of the user and one of somebody else."""
    site.photos = [Photo(number, ["合计 38元"]) for number in range(1, 6)] + [Photo(9, owner="somebody")]
    site.files = {
        "/photos": File(PAGE, headers=STRICT),
        "/_app/immutable/app.js": File(APP, "text/javascript"),
    }
    return site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(web: GatewayProcess) -> AsyncIterator[browser.Page]:
    async with browser.page() as tab:
        await tab.size(1280, 900)
        await tab.call("Network.setCacheDisabled", cacheDisabled=True)
        await tab.call("Network.setCookie", name="immich_access_token", value=KEY, url=web.url)
        yield tab


@pytest_asyncio.fixture(loop_scope="module")
async def tab(chromium: browser.Page, web: GatewayProcess, app: ImmichSite) -> AsyncIterator[browser.Page]:
    """Give the app as it has just been opened."""
    await chromium.call("Storage.clearDataForOrigin", origin=web.url, storageTypes="local_storage")
    await chromium.open(f"{web.url}/photos")
    await chromium.wait_for(f"document.querySelectorAll('{VIEWER} [data-immich-triton]').length == 2")
    yield chromium
    assert chromium.exceptions == []


def items(menu: str) -> str:
    """Return the expression for what a menu shows."""
    return f"[...document.querySelectorAll('{menu} ul > *')].map(each => each.textContent.trim() || each.tagName)"


def ours(menu: str, task: str) -> str:
    return f"document.querySelector('{menu} [data-immich-triton=\"{task}\"]')"


async def toast(tab: browser.Page, text: str) -> None:
    await tab.wait_for(f"{TOASTS}.some(each => each.startsWith({text!r}))")


async def choose(tab: browser.Page, script: str, *photos: int) -> None:
    """Open a photo in the app, or select several."""
    ids = [photo_id(number) for number in photos]
    await tab.evaluate(f"app.{script} = {ids if script == 'selected' else ids[0]!r}; 1")


async def press(tab: browser.Page, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        await tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text="\r" if key == "Enter" else "")


async def test_our_items_are_the_first_after_refresh_faces(tab: browser.Page) -> None:
    assert await tab.evaluate(items(VIEWER)) == [
        *("download", "HR", "refresh-faces", "Refresh OCR", "Refresh CLIP"),
        *("refresh-metadata", "regenerate-thumbnail"),
    ]
    assert await tab.evaluate(items(SELECTION)) == [
        *("download", "HR", "Refresh OCR", "Refresh CLIP", "regenerate-thumbnail", "refresh-metadata")
    ]


async def test_a_click_has_the_photo_read_again_and_says_so(tab: browser.Page, app: ImmichSite, queues: Redis) -> None:
    await choose(tab, "photo", 2)
    await tab.click(f"document.querySelector('{VIEWER} button')")
    await tab.click(ours(VIEWER, "refresh-ocr"))
    await toast(tab, "OCR: done")
    assert (await tab.evaluate(TOASTS))[0] == "OCR: queued"
    assert await tab.evaluate(f"document.querySelector('{VIEWER} button').ariaExpanded") == "false"
    assert await tab.evaluate("app.said") == [], "the app's own job was not done, and nothing said of it"
    assert app.jobs == [("Ocr", photo_id(2))]
    assert not list(queues.client.scan_iter("*immich-triton-*"))


async def test_the_whole_selection_is_embedded_again_and_is_selected_no_more(
    tab: browser.Page, app: ImmichSite
) -> None:
    await choose(tab, "selected", 1, 3, 5)
    await tab.click(ours(SELECTION, "refresh-clip"))
    await toast(tab, "CLIP: done (3")
    assert [photo.embedded for photo in app.photos[:5]] == [1, 0, 1, 0, 1]
    assert await tab.evaluate("[app.selected, app.said]") == [[], []]


async def test_arrow_keys_and_enter(tab: browser.Page, app: ImmichSite) -> None:
    await choose(tab, "photo", 4)
    await tab.evaluate(f"document.querySelector('{VIEWER} button').focus()")
    for _ in range(4):
        await press(tab, "ArrowDown")
    shaded = f"[...document.querySelectorAll('{VIEWER} .bg-slate-300')].map(each => each.textContent.trim())"
    await tab.wait_for(f"{shaded}.join() == 'Refresh CLIP'")
    await press(tab, "ArrowUp")
    await tab.wait_for(f"{shaded}.join() == 'Refresh OCR'")
    await press(tab, "Enter")
    await toast(tab, "OCR: done")
    assert app.jobs == [("Ocr", photo_id(4))]
    assert await tab.evaluate(shaded) == []


async def test_a_failed_run_is_said_with_its_reason(tab: browser.Page, app: ImmichSite) -> None:
    app.ml_is_down = True
    await choose(tab, "selected", 1, 2)
    await tab.click(ours(SELECTION, "refresh-ocr"))
    await toast(tab, "OCR: failed (2/2; ended without a result: is the machine learning up and on?)")


async def test_the_reason_speaks_the_language_of_the_app(tab: browser.Page, app: ImmichSite) -> None:
    app.ml_is_down = True
    await tab.evaluate("localStorage.setItem('lang', 'de'); app.render()")
    await choose(tab, "selected", 1, 2)
    await tab.wait_for(f"{ours(SELECTION, 'refresh-ocr')} != null")
    await tab.click(ours(SELECTION, "refresh-ocr"))
    await toast(tab, "OCR: fehlgeschlagen (2/2; ohne Ergebnis beendet")


async def test_what_immich_refuses_is_said_in_its_words(tab: browser.Page, app: ImmichSite) -> None:
    await choose(tab, "photo", 9)
    await tab.click(ours(VIEWER, "refresh-ocr"))
    await toast(tab, "OCR: failed (Not found or no asset.update access)")
    assert app.jobs == []


async def test_the_apps_own_items_do_as_ever(tab: browser.Page, app: ImmichSite) -> None:
    await choose(tab, "photo", 1)
    await tab.click(f"document.querySelector('{VIEWER} li:nth-of-type(2)')")
    await tab.wait_for("app.said.length")
    assert await tab.evaluate("app.said") == ["refresh-faces"]
    assert app.jobs == [("refresh-faces", photo_id(1))]


async def test_whoever_is_not_the_owner_sees_no_items(tab: browser.Page) -> None:
    await tab.evaluate("app.render({owner: false})")
    await tab.evaluate(FRAMES)
    assert await tab.evaluate(items(VIEWER)) == ["download"]
    assert await tab.evaluate(items(SELECTION)) == ["download"]
    # The same menu, of which the app takes its own item away.
    await tab.evaluate("app.render()")
    await tab.wait_for(f"{ours(VIEWER, 'refresh-ocr')} != null")
    await tab.evaluate(f"document.querySelectorAll('{VIEWER} li[id^=id-], {VIEWER} hr').forEach(each => each.remove())")
    await tab.wait_for(f"{items(VIEWER)}.length == 0")


LANGUAGES: Final = {
    "en": "Refresh OCR",
    "zh_Hans": "刷新 OCR",
    "zh-CN": "刷新 OCR",
    "zh-Hant": "重新整理 OCR",
    "zh-TW": "重新整理 OCR",
    "ja": "OCR を更新",
    "ko": "OCR 새로고침",
    "de-CH": "OCR aktualisieren",
    "fr": "Actualiser OCR",
    "es": "Actualizar OCR",
    "th": "รีเฟรช OCR",
    "it": "Refresh OCR",
    "constructor": "Refresh OCR",
}


async def test_the_items_speak_the_language_of_the_app(tab: browser.Page) -> None:
    shown: dict[str, Any] = {}
    for code in LANGUAGES:
        await tab.evaluate(f"localStorage.setItem('lang', {code!r}); app.render()")
        await tab.wait_for(f"{ours(VIEWER, 'refresh-ocr')} != null")
        shown[code] = await tab.evaluate(f"{ours(VIEWER, 'refresh-ocr')}.textContent.trim()")
    assert shown == LANGUAGES


async def test_an_app_that_sends_its_requests_otherwise_is_left_alone(
    web: GatewayProcess, app: ImmichSite, tab: browser.Page
) -> None:
    """It could not be asked for its photos, and would do its own job at our click."""
    app.files |= {
        "/photos": File(PAGE.replace(b"<title>", b'<script src="/early.js"></script><title>'), headers=STRICT),
        "/early.js": File(b"globalThis.kept = fetch.bind(globalThis);", "text/javascript"),
        "/_app/immutable/app.js": File(b"const fetch = globalThis.kept;\n" + APP, "text/javascript"),
    }
    await tab.open(f"{web.url}/photos?again")
    await tab.wait_for("globalThis.kept != null && document.querySelector('li') != null")
    assert await tab.evaluate("document.scripts.length") == 3, "ours is the third"
    await tab.evaluate(FRAMES)
    assert await tab.evaluate("document.querySelector('[data-immich-triton]')") is None
