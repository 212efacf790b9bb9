"""The script of the menu: in the app's page and in no other answer, and served with headers that caches may trust."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, get_args, get_type_hints

import pytest
import requests
from gateway_process import GatewayProcess
from immich_site import PAGE, File, ImmichSite
from mitmproxy.net.encoding import decode, encode
from places import DATA, PROJECT
from site_process import running_web

from harness.program import eventually
from immich_triton.web.injection import LARGEST, Gathered, etag_with, with_script
from immich_triton.web.reprocessing import runs
from immich_triton.web.reprocessing.runs import Result

APP: Final = (DATA / "app" / "app.html").read_bytes()
SCRIPT: Final = (PROJECT / "addons/immich_triton/web/menu.js").read_bytes()
TAG: Final = re.compile(rb'<script src="(/immich-triton/menu\.([0-9a-f]{12})\.js)" defer></script>(?=</body>)')


@pytest.fixture(scope="module")
def web(shared_site: ImmichSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Give mitmdump with an address of Redis, to which nothing here connects."""
    with running_web(tmp_path_factory.mktemp("web"), shared_site.url, web_redis_url="redis://127.0.0.1:9") as process:
        yield process


@pytest.fixture
def app(site: ImmichSite) -> ImmichSite:
    site.files = {"/photos": File(APP, headers={"ETag": '"page"', "Cache-Control": "no-store"})}
    return site


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers={"Accept-Encoding": "identity", **headers}, timeout=60)


def raw(url: str, coding: str) -> tuple[requests.Response, bytes]:
    """Return an answer and its body as it came."""
    answer = requests.get(url, headers={"Accept-Encoding": coding}, timeout=60, stream=True)
    return answer, answer.raw.read(decode_content=False)


def address(web: GatewayProcess) -> str:
    found = TAG.search(get(f"{web.url}/photos").content)
    assert found
    return web.url + found[1].decode()


def test_the_page_gets_one_tag_and_nothing_else(web: GatewayProcess, app: ImmichSite) -> None:
    answer = get(f"{web.url}/photos")
    found = TAG.search(answer.content)
    assert found
    assert TAG.sub(b"", answer.content) == APP
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["ETag"] == f'"page-{found[2].decode()}"'


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
def test_a_compressed_page_stays_compressed(web: GatewayProcess, app: ImmichSite, coding: str) -> None:
    app.files["/photos"] = File(encode(APP, coding), headers={"Content-Encoding": coding, "ETag": 'W/"page"'})
    answer, body = raw(f"{web.url}/photos", coding)
    assert answer.headers["Content-Encoding"] == coding
    assert int(answer.headers["Content-Length"]) == len(body)
    page = decode(body, coding)
    assert isinstance(page, bytes)
    assert TAG.search(page)
    assert TAG.sub(b"", page) == APP
    assert re.fullmatch(r'W/"page-[0-9a-f]{12}"', answer.headers["ETag"])


UNTOUCHED: Final = {
    "another page": File(PAGE),
    "no page at all": File(b""),  # as Immich answers without its web app
    "an error": File(APP, status=404),
    "not HTML": File(APP, "text/plain"),
    "two ends": File(APP + b"<!-- </body> -->"),
    "not what it says": File(APP, headers={"Content-Encoding": "gzip"}),
    "an unknown coding": File(APP, headers={"Content-Encoding": "gzip, br"}),
    "too large": File(APP + b" " * (1 << 20)),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_what_is_not_the_apps_page_passes_as_it_is(web: GatewayProcess, app: ImmichSite, case: str) -> None:
    app.files["/photos"] = UNTOUCHED[case]
    ours, body = raw(f"{web.url}/photos", "gzip")
    stock, stock_body = raw(f"{app.url}/photos", "gzip")
    assert (ours.status_code, body) == (stock.status_code, stock_body)
    assert {**ours.headers, "Date": ""} == {**stock.headers, "Date": ""}


@pytest.mark.parametrize("coding", ["identity", "gzip", "br"])
def test_a_page_without_a_length_gets_the_tag_too(web: GatewayProcess, app: ImmichSite, coding: str) -> None:
    body = APP if coding == "identity" else encode(APP, coding)
    assert isinstance(body, bytes)
    headers = {"ETag": '"page"'} | ({} if coding == "identity" else {"Content-Encoding": coding})
    app.files["/photos"] = File(body, headers=headers, chunked=True)
    answer, sent = raw(f"{web.url}/photos", coding)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    page = decode(sent, coding)
    assert isinstance(page, bytes)
    assert TAG.search(page)
    assert TAG.sub(b"", page) == APP
    assert re.fullmatch(r'"page-[0-9a-f]{12}"', answer.headers["ETag"])


@pytest.mark.parametrize("case", UNTOUCHED)
def test_what_is_not_the_apps_page_passes_as_it_is_without_a_length_too(
    web: GatewayProcess, app: ImmichSite, case: str
) -> None:
    app.files["/photos"] = replace(UNTOUCHED[case], chunked=True)
    ours, body = raw(f"{web.url}/photos", "gzip")
    stock, stock_body = raw(f"{app.url}/photos", "gzip")
    assert (ours.status_code, body) == (stock.status_code, stock_body)
    assert {**ours.headers, "Date": ""} == {**stock.headers, "Date": ""}


def test_of_a_page_without_an_end_no_more_is_held_than_a_page_has(web: GatewayProcess, app: ImmichSite) -> None:
    body = APP + b" " * (64 << 20)
    app.files["/photos"] = File(body, chunked=True)
    assert raw(f"{web.url}/photos", "identity")[1][: len(APP)] == APP
    growth = web.growth()
    assert len(raw(f"{web.url}/photos", "identity")[1]) == len(body)
    assert growth() < 32 << 20


def test_a_body_is_given_as_a_whole_or_passes() -> None:
    given: list[bytes] = []

    def change(body: bytes) -> bytes:
        given.append(body)
        return body.upper()

    short = Gathered(change)
    assert [[*short(chunk)] for chunk in (b"a", b"b", b"")] == [[], [], [b"AB"]]
    empty = Gathered(change)
    assert [*empty(b"")] == []
    long = Gathered(change)
    piece = b"x" * LARGEST
    assert [[*long(chunk)] for chunk in (piece, b"y", b"z", b"")] == [[], [piece + b"y"], [b"z"], []]
    assert given == [b"ab", b""]


@pytest.mark.parametrize("path", ["/photos", "/elsewhere"])
def test_the_head_of_a_page_promises_nothing_of_stocks(web: GatewayProcess, app: ImmichSite, path: str) -> None:
    stock = requests.head(f"{app.url}{path}", timeout=60)
    ours = requests.head(f"{web.url}{path}", timeout=60)
    assert (ours.status_code, ours.content) == (200, b"")
    assert "Content-Length" in stock.headers
    assert not {"Content-Length", "ETag"} & {*ours.headers}
    assert {name for name in stock.headers if name not in ("Content-Length", "ETag")} == {*ours.headers}


def test_the_head_of_anything_else_is_immichs(web: GatewayProcess, app: ImmichSite) -> None:
    app.files["/file"] = File(b"text", "text/plain", {"ETag": '"file"'})
    assert requests.head(f"{web.url}/file", timeout=60).headers["ETag"] == '"file"'


def test_a_page_that_cannot_be_read_is_one_line_in_the_log(web: GatewayProcess, app: ImmichSite) -> None:
    def lines() -> int:
        return web.whole_log().count("a page is left to Immich as it is, because of a fault here: ")

    before = lines()
    app.files["/photos"] = UNTOUCHED["not what it says"]
    assert raw(f"{web.url}/photos", "gzip")[1] == APP
    assert eventually(lambda: lines() == before + 1)


def test_nothing_of_the_api_is_a_page(web: GatewayProcess, app: ImmichSite) -> None:
    app.files["/api/assets/1/original"] = app.files["/photos"]
    assert get(f"{web.url}/api/assets/1/original").content == APP


def test_the_script_is_kept_for_ever_under_the_address_in_the_page(web: GatewayProcess, app: ImmichSite) -> None:
    answer = get(address(web), **{"Accept-Encoding": "gzip"})
    assert (answer.status_code, answer.content) == (200, SCRIPT)
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("gzip", "Accept-Encoding")
    unchanged = get(address(web), **{"If-None-Match": answer.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert "Content-Length" not in unchanged.headers
    assert app.of("/immich-triton/") == [], "Immich was not asked"


def test_under_the_address_of_another_version_it_is_not_kept(web: GatewayProcess, app: ImmichSite) -> None:
    answer = get(f"{web.url}/immich-triton/menu.0123456789ab.js")
    assert (answer.content, answer.headers["Cache-Control"]) == (SCRIPT, "no-cache")


def test_anything_else_below_our_path_is_immichs(web: GatewayProcess, app: ImmichSite) -> None:
    for path in ("menu.js", "menu.0123456789ab.js/..", "menu.0123456789ab.js?x", ""):
        assert get(f"{web.url}/immich-triton/{path}").content == PAGE
    assert requests.post(address(web), data=b"x", timeout=60).status_code == 405


def test_every_reason_has_words_in_every_language() -> None:
    text = SCRIPT.decode()

    def table(name: str) -> str:
        return text.partition(f"const {name} = {{")[2].partition("\n  };")[0]

    languages = re.findall(r'^    "?([a-zA-Z-]+)"?: \[', table("WORDS"), re.MULTILINE)
    assert len(languages) == 9
    blocks = re.findall(r'^    "?([a-zA-Z-]+)"?: \{(.*?)^    \}', table("REASONS"), re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == languages
    said = {field for field in get_args(get_type_hints(Result)["reason"]) if field}
    for language, block in blocks:
        words = dict(re.findall(r'^      (\w+): "(.+)",$', block, re.MULTILINE))
        assert words.keys() == said | {"not_named", "restarted"}, language
    assert said == {one.reason for one in vars(runs).values() if isinstance(one, Result) and one.reason}


def test_a_script_of_a_few_kilobytes() -> None:
    assert len(gzip.compress(SCRIPT)) < 8000


@pytest.mark.parametrize(("menu", "redis_url"), [("off", "redis://127.0.0.1:9"), ("on", "")])
def test_switched_off_or_without_redis_the_page_is_immichs(
    app: ImmichSite, tmp_path_factory: pytest.TempPathFactory, menu: str, redis_url: str
) -> None:
    with running_web(tmp_path_factory.mktemp("off"), app.url, web_menu=menu, web_redis_url=redis_url) as web:
        answer = get(f"{web.url}/photos")
        assert (answer.content, answer.headers["ETag"]) == (APP, '"page"')
        assert get(f"{web.url}/immich-triton/menu.0123456789ab.js").content == PAGE


def test_where_the_tag_goes() -> None:
    page = b'<body><script src="/_app/immutable/x.js"></script></body></html>'
    assert with_script(page, "/a.js") == page.replace(b"</body>", b'<script src="/a.js" defer></script></body>')
    assert with_script(b"<body></body>", "/a.js") is None
    assert with_script(page.replace(b"</body>", b""), "/a.js") is None


@pytest.mark.parametrize(
    ("etag", "changed"), [('"1"', '"1-v"'), ('W/"1"', 'W/"1-v"'), ('""', '"-v"'), ("1", None), ('"1", "2"', None)]
)
def test_an_etag_tells_the_version_too(etag: str, changed: str | None) -> None:
    assert etag_with(etag, "v") == changed
