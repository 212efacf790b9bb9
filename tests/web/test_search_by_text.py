"""``ocr:`` in the search bar: a search by the text in photos, by relevance, in the answers that clients expect."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from gateway_process import GatewayProcess
from immich_photos import KEY, OTHER_KEY, Photo
from immich_site import ImmichSite
from site_searches import VERSIONS, Search, numbers


@pytest.fixture
def receipts(site: ImmichSite) -> ImmichSite:
    """Give six photos; stock's order for 总计 is 6 5 3 1, the newest first."""
    site.photos = [
        Photo(1, ["总计", "18.50元"], favorite=True),
        Photo(2, ["停水通知"]),
        Photo(3, ["总计 1", "总计 2", "总计 3"], favorite=True),
        Photo(4, ["电子发票"]),
        Photo(5, ["请您核对总计金额后再付款"]),
        Photo(6, ["计", "总", "总计"], hidden_lines=["停水"]),
        Photo(7, ["总计"], owner=OTHER_KEY),
    ]
    return site


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("query", ["ocr:总计", "OCR：总计", " Ocr : 总计 "])
def test_photos_come_by_relevance(receipts: ImmichSite, search: Search, version: str, query: str) -> None:
    receipts.version = version
    answer = search({"query": query, "language": "zh-CN", "withExif": True, "page": 1})
    # 3: three times, .033 and 2/4 of a line, .025. 6 and 1: alone on a line, .05, the newer first. 5: in a sentence.
    assert numbers(answer) == [3, 6, 1, 5]
    assert not receipts.of("/smart")
    asked = receipts.of("/metadata")[0].json
    assert asked == {"ocr": "总计", "withExif": True, "page": 1, "size": 100}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_answer_has_immichs_shape_and_whole_photos(receipts: ImmichSite, search: Search, version: str) -> None:
    receipts.version = version
    body = {"query": "ocr:总计", "withExif": True}
    answer = search(body)
    stock = requests.post(
        f"{receipts.url}/api/search/metadata",
        json={"ocr": "总计", "withExif": True},
        headers={"x-api-key": KEY},
        timeout=60,
    )
    ours, theirs = answer.json(), stock.json()
    assert ours.keys() == theirs.keys()
    assert ours["assets"].keys() == theirs["assets"].keys()
    assert ours["albums"] == theirs["albums"]
    by_id = {item["id"]: item for item in theirs["assets"]["items"]}
    assert [by_id[item["id"]] for item in ours["assets"]["items"]] == ours["assets"]["items"]
    assert (ours["assets"]["total"], ours["assets"]["count"], ours["assets"]["nextPage"]) == (4, 4, None)
    sign = "x-immich-cid" if version < "3" else "X-Correlation-ID"
    assert answer.headers[sign] == "abc123"
    assert answer.headers["Content-Type"] == stock.headers["Content-Type"]
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert "ETag" not in answer.headers


def test_an_answer_is_compressed_for_those_who_can_read_it(receipts: ImmichSite, search: Search) -> None:
    packed = search({"query": "ocr:总计"}, **{"Accept-Encoding": "br, gzip;q=0.5"})
    plain = search({"query": "ocr:总计"}, **{"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()


def test_filters_stay_as_they_came(receipts: ImmichSite, search: Search) -> None:
    filters = {"isFavorite": True, "personIds": [], "visibility": "timeline", "city": "", "someDay": 1}
    assert set(numbers(search({"query": "ocr:总计", **filters}))) == {1, 3}
    asked = receipts.of("/metadata")[0].json
    assert filters.items() <= asked.items()


def test_filters_in_the_shape_of_3_2(receipts: ImmichSite, search: Search) -> None:
    receipts.version = "3.2.0"
    answer = search({"query": "ocr:总计", "size": 1, "filter": {"isFavorite": {"eq": True}}})
    assert len(numbers(answer)) == 1
    assets = answer.json()["assets"]
    assert (assets["nextPage"], assets["nextCursor"]) == (None, None)  # a smart search of this shape has one page
    asked = receipts.of("/metadata")[0].json
    assert asked == {"size": 10, "filter": {"isFavorite": {"eq": True}, "ocr": {"matches": "总计"}}}


def test_an_immich_that_ignores_filters_is_not_asked_with_them(receipts: ImmichSite, search: Search) -> None:
    receipts.version = "3.1.0"
    body = {"query": "ocr:总计", "filter": {"isFavorite": {"eq": True}}}
    answer = search(body)
    assert numbers(answer) == [1, 2, 3, 4, 5, 6]  # as stock: it knows neither the prefix nor the filter
    assert receipts.of("/smart")[0].json == body


@pytest.mark.parametrize("version", VERSIONS)
def test_pages_go_on_without_repeat_or_gap(site: ImmichSite, search: Search, version: str) -> None:
    site.version = version
    site.photos = [Photo(number, ["总计"] * (number % 4 + 1)) for number in range(1, 24)]
    shown: list[int] = []
    page: str | None = "1"
    while page:
        answer = search({"query": "ocr:总计", "page": int(page), "size": 4})
        found = numbers(answer)
        assert 0 < len(found) <= 4
        shown += found
        page = answer.json()["assets"]["nextPage"]
        assert page is None or isinstance(page, str)
    assert sorted(shown) == list(range(1, 24))
    # The ten newest were ranked: those with the text four times first. Then stock's own order goes on.
    assert shown[:10] == [23, 19, 15, 22, 18, 14, 21, 17, 20, 16]
    assert shown[10:] == list(range(13, 0, -1))


def test_a_page_past_the_end_is_empty(receipts: ImmichSite, search: Search) -> None:
    answer = search({"query": "ocr:总计", "page": 9})
    assert (numbers(answer), answer.json()["assets"]["nextPage"]) == ([], None)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("query", ["ocr:", "OCR： ", "海边 ocr:"])
def test_without_words_nothing_is_found(receipts: ImmichSite, search: Search, version: str, query: str) -> None:
    receipts.version = version
    answer = search({"query": query})
    assert numbers(answer) == []
    assert answer.json()["assets"] | {"nextCursor": None} == {
        "total": 0,
        "count": 0,
        "items": [],
        "facets": [],
        "nextPage": None,
        "nextCursor": None,
    }


def test_words_that_nobody_wrote_find_nothing(receipts: ImmichSite, search: Search) -> None:
    assert numbers(search({"query": "ocr:机场"})) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_mixed_search_is_by_picture_among_those_with_the_text(
    receipts: ImmichSite, search: Search, version: str
) -> None:
    receipts.version = version
    receipts.by_picture = {"海边": [5, 4, 3, 2, 1, 6]}
    answer = search({"query": "海边 ocr:总计", "language": "zh-CN", "page": 2, "size": 2})
    assert numbers(answer) == [1, 6]
    (asked,) = receipts.of("/smart")
    assert asked.json == {"query": "海边", "ocr": "总计", "language": "zh-CN", "page": 1, "size": 10}


def test_a_mixed_search_finds_either_script(receipts: ImmichSite, search: Search) -> None:
    """Stock compares characters; what another spelling found stands where the picture says."""
    receipts.photos += [Photo(8, ["臺北車站"]), Photo(9, ["台北车站"])]
    receipts.by_picture = {"车": [8, 1, 9, 2]}
    assert numbers(search({"query": "车 ocr:台北"})) == [8, 9]
    assert numbers(search({"query": "车 ocr:臺北"})) == [8, 9]


@pytest.mark.parametrize("query", ["海边 ocr:总计", "海边 ocr:台北"])
def test_a_mixed_search_that_fails_here_is_still_asked_in_two_halves(
    receipts: ImmichSite, search: Search, web: GatewayProcess, query: str
) -> None:
    receipts.broken_searches = True
    search({"query": query})
    last = receipts.of("/smart")[-1].json
    assert last == {"query": "海边", "ocr": query.partition(":")[2]}
    assert "a search is left to Immich as it is, because of a fault here" in web.whole_log()


def test_a_mixed_search_in_the_shape_of_3_2(receipts: ImmichSite, search: Search) -> None:
    receipts.version = "3.2.0"
    assert numbers(search({"query": "海边 ocr:总计", "filter": {"isFavorite": {"eq": True}}})) == [1, 3]


def test_with_the_smart_search_switched_off_the_web_app_asks_the_other_one(
    receipts: ImmichSite, search: Search
) -> None:
    assert numbers(search({"query": "ocr:停水"}, "/api/search/metadata")) == [2]
    assert numbers(search({"query": "停水"}, "/api/search/metadata")) == [6, 5, 4, 3, 2, 1]  # stock ignores it


def test_the_other_chinese_script_is_found_too(site: ImmichSite, search: Search) -> None:
    site.photos = [Photo(1, ["臺北車站"]), Photo(2, ["台北车站"]), Photo(3, ["高雄"])]
    assert sorted(numbers(search({"query": "ocr:台北"}))) == [1, 2]
    assert sorted(numbers(search({"query": "ocr:臺北"}))) == [1, 2]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("query", ["ocr:总计", "ocr:", "总计"])
@pytest.mark.parametrize(
    ("path", "key", "more", "status"),
    [
        ("/api/search/smart", None, {}, 401),
        ("/api/search/smart", "wrong", {}, 401),
        ("/api/search/smart?key=link", None, {}, 403),
        ("/api/search/smart", KEY, {"size": 1001}, 400),
        ("/api/search/smart", KEY, {"page": 0}, 400),
    ],
)
def test_refusals_are_immichs_own(
    receipts: ImmichSite,
    search: Search,
    version: str,
    query: str,
    path: str,
    key: str | None,
    more: dict[str, Any],
    status: int,
) -> None:
    receipts.version = version
    body = {"query": query, **more}
    headers = {"x-api-key": key} if key else {}
    stock = requests.post(f"{receipts.url}{path}", json=body, headers=headers, timeout=60)
    answer = search(body, path, key)
    assert (answer.status_code, answer.json()) == (stock.status_code, stock.json())
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/search/smart?apiKey=" + OTHER_KEY, {}),
        ("/api/search/smart", {"Cookie": f"other=1; immich_access_token={OTHER_KEY}"}),
        ("/api/search/smart", {"Authorization": f"Bearer {OTHER_KEY}"}),
    ],
)
def test_every_kind_of_login_goes_along_and_shows_what_it_may_see(
    receipts: ImmichSite, search: Search, path: str, headers: dict[str, str]
) -> None:
    answer = search({"query": "ocr:总计"}, path, None, **headers, **{"User-Agent": "immich-android/2.7", "X-Any": "1"})
    assert numbers(answer) == [7]
    for request in receipts.seen:
        assert (request.header("user-agent"), request.header("x-any")) == ("immich-android/2.7", "1")
        assert request.header("x-forwarded-for") == "127.0.0.1"
        for name, value in headers.items():
            assert request.header(name) == value


def test_texts_are_read_once_and_not_shared_between_callers(site: ImmichSite, search: Search) -> None:
    site.photos = [Photo(number, ["机场巴士"]) for number in (301, 302)]
    search({"query": "ocr:机场"})
    search({"query": "ocr:巴士"})
    assert len(site.of("/ocr")) == 2
    site.photos[0].owner = OTHER_KEY
    assert numbers(search({"query": "ocr:机场"}, key=OTHER_KEY)) == [301]
    assert len(site.of("/ocr")) == 3


def test_photos_whose_text_cannot_be_read_keep_their_place(site: ImmichSite, search: Search) -> None:
    site.photos = [Photo(311, ["机场"]), Photo(312, ["请到机场等候"])]
    site.failing = {"/ocr": 500}
    assert numbers(search({"query": "ocr:机场"})) == [312, 311]
    site.failing = {}
    assert numbers(search({"query": "ocr:机场"})) == [311, 312]


def test_only_the_lines_that_can_be_seen_count(site: ImmichSite, search: Search) -> None:
    site.photos = [Photo(321, ["机场", "出口"]), Photo(322, ["机场"], hidden_lines=["出口"])]
    assert numbers(search({"query": "ocr:机场 出口"})) == [321, 322]


def test_the_words_are_not_logged(receipts: ImmichSite, search: Search, web: GatewayProcess) -> None:
    receipts.failing = {"/metadata": 500}
    assert search({"query": "ocr:geheim"}).status_code == 500
    log = web.whole_log()
    assert "geheim" not in log
    assert KEY not in log
