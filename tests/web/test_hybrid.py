"""An ordinary smart search is ranked by picture and text; Immich decides who sees what, and is what remains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests
from gateway_process import GatewayProcess
from immich_photos import KEY, OTHER_KEY, Photo
from immich_site import ImmichSite
from site_process import running_web
from site_searches import VERSIONS, Search, numbers


@pytest.fixture
def album(site: ImmichSite) -> ImmichSite:
    """Give 30 photos; for 宫保 the pictures come from 1 to 30, and 5, 20 and 25 have the text, 20 best."""
    site.photos = [Photo(number) for number in range(1, 31)]
    site.photos[4].lines = ["本店特价宫保鸡丁一份"]
    site.photos[19].lines = ["宫保", "宫保"]
    site.photos[24].lines = ["宫保鸡丁"]
    return site


# k = 60, ten photos of each search. 20: 1/61 by text. 25: 1/62. 5: 1/65 by picture + 1/63 by text, the first.
FUSED = [5, 1, 20, 2, 25, 3, 4, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("version", VERSIONS)
def test_both_orders_are_fused(album: ImmichSite, search: Search, version: str) -> None:
    album.version = version
    answer = search({"query": "宫保", "language": "zh-CN", "isFavorite": False, "size": 8})
    assert numbers(answer) == FUSED[:8]
    assert answer.json()["assets"]["nextPage"] == "2"
    (smart,), (metadata, other) = album.of("/smart"), album.of("/metadata")
    assert smart.json == {"query": "宫保", "language": "zh-CN", "isFavorite": False, "size": 10, "page": 1}
    assert metadata.json == {"ocr": "宫保", "isFavorite": False, "size": 10, "page": 1}
    assert other.json == {**metadata.json, "ocr": "宮保"}


def test_pages_end_where_immichs_order_goes_on_and_then_end(album: ImmichSite, search: Search) -> None:
    shown: list[int] = []
    page: str | None = "1"
    while page:
        answer = search({"query": "宫保", "page": int(page), "size": 8})
        found = numbers(answer)
        assert 0 < len(found) <= 8
        shown += found
        page = answer.json()["assets"]["nextPage"]
    assert shown[:12] == FUSED
    assert shown[12:] == [number for number in range(11, 31) if number not in (20, 25)]


@pytest.mark.parametrize("change", ["removed", "added"])
def test_page_two_has_no_repeat_and_no_gap_when_photos_change(album: ImmichSite, search: Search, change: str) -> None:
    assert numbers(search({"query": "宫保", "size": 4})) == FUSED[:4]
    if change == "removed":
        del album.photos[2]  # photo 3, which stands on the second page
        album.photos[0].lines = []
        left = [25, 4, 6]
    else:
        # Two pictures that fit better push two out of the first ten of Immich's; they are asked for one by one.
        album.photos += [Photo(31), Photo(32)]
        album.by_picture = {"宫保": [31, 32, *range(1, 31)]}
        left = [25, 3, 4, 6]
    assert numbers(search({"query": "宫保", "size": 4, "page": 2})) == left
    assert numbers(search({"query": "宫保", "size": 4, "page": 3})) == [7, 8, 9, 10]


def test_rights_are_asked_for_each_page(album: ImmichSite, search: Search) -> None:
    search({"query": "宫保", "size": 4})
    album.photos[3].owner = OTHER_KEY  # photo 4 is no longer the caller's
    assert numbers(search({"query": "宫保", "size": 4, "page": 2})) == [25, 3, 6]
    assert search({"query": "宫保", "size": 4, "page": 2}, key="withdrawn").status_code == 401


def test_an_emptied_page_is_passed_over(album: ImmichSite, search: Search) -> None:
    search({"query": "宫保", "size": 2})
    album.photos = [photo for photo in album.photos if photo.number not in (20, 2)]
    answer = search({"query": "宫保", "size": 2, "page": 2})
    assert (numbers(answer), answer.json()["assets"]["nextPage"]) == ([25, 3], "4")


def test_lists_are_not_shared_between_callers(album: ImmichSite, search: Search) -> None:
    album.photos += [Photo(number, owner=OTHER_KEY) for number in range(101, 121)]
    search({"query": "宫保", "size": 8})
    assert numbers(search({"query": "宫保", "size": 8, "page": 2}, key=OTHER_KEY)) == [109, 110]


def test_a_list_that_is_not_kept_is_made_again_with_a_line_in_the_log(
    album: ImmichSite, search: Search, web: GatewayProcess
) -> None:
    before = web.whole_log().count("list is not kept any more")
    assert numbers(search({"query": "宫保", "size": 5, "page": 2})) == FUSED[5:10]
    assert web.whole_log().count("list is not kept any more") == before + 1


def test_a_large_page_takes_the_depth_along(album: ImmichSite, search: Search) -> None:
    found = numbers(search({"query": "宫保", "size": 1000}))
    assert sorted(found) == list(range(1, 31))
    assert found[:3] == [5, 20, 25]  # 20 and 25 have a place by picture too, among all


def test_in_the_shape_of_3_2_there_is_one_page(album: ImmichSite, search: Search) -> None:
    album.version = "3.2.0"
    answer = search({"query": "宫保", "size": 8, "filter": {"isFavorite": {"eq": False}}})
    assert numbers(answer) == FUSED[:8]
    assert (answer.json()["assets"]["nextPage"], answer.json()["assets"]["nextCursor"]) == (None, None)


def test_half_of_the_words_does_not_lift_a_photo(album: ImmichSite, search: Search) -> None:
    album.photos += [Photo(40, ["停水通知"]), Photo(41, ["物业", "停水"])]
    # Immich's own text search finds 40 too: it is content with one word of two.
    shown = numbers(search({"query": "物业 停水", "size": 11}))
    assert 40 not in shown
    assert 41 in shown


@pytest.mark.parametrize("version", VERSIONS)
def test_with_ml_down_photos_come_by_their_text_alone(
    album: ImmichSite, search: Search, version: str, web: GatewayProcess
) -> None:
    album.version, album.ml_is_down = version, True
    assert numbers(search({"query": "宫保"})) == [20, 25, 5]
    assert "by their text alone" in web.whole_log()
    stock = requests.post(
        f"{album.url}/api/search/smart", json={"query": "机场"}, headers={"x-api-key": KEY}, timeout=60
    )
    ours = search({"query": "机场"})
    assert (ours.status_code, ours.json()) == (stock.status_code, stock.json()) == (500, stock.json())


@pytest.mark.parametrize("failing", [{"/metadata": 500}, {"/metadata": 400}])
def test_without_the_text_side_the_order_is_that_of_the_picture(
    album: ImmichSite, search: Search, failing: dict[str, int], web: GatewayProcess
) -> None:
    album.failing = failing
    before = web.whole_log().count("by the picture alone")
    answer = search({"query": "宫保", "size": 8})
    assert (numbers(answer), answer.json()["assets"]["nextPage"]) == ([1, 2, 3, 4, 5, 6, 7, 8], "2")
    assert web.whole_log().count("by the picture alone") == before + 1


def test_in_an_album_only_the_photos_of_the_smart_search_are_shown(album: ImmichSite, search: Search) -> None:
    """Since 3.1 the metadata search finds the photos of all members, the smart search only one's own."""
    album.version = "3.1.0"
    for photo in album.photos[:20]:
        photo.albums = ("the-album",)
    album.photos.append(Photo(99, ["宫保"], owner=OTHER_KEY, albums=("the-album",)))
    album.album_members = {"the-album": [OTHER_KEY]}
    shown = numbers(search({"query": "宫保", "albumIds": ["the-album"], "size": 20}))
    assert sorted(shown) == list(range(1, 21))
    assert shown[:2] == [5, 20]


@pytest.mark.parametrize(
    "body",
    [
        {"queryAssetId": "x", "query": "cat"},
        {"query": "宫保", "ocr": "鸡丁"},
        {"query": "  "},
        {"query": "宫保", "size": 0},
    ],
)
def test_other_searches_are_stocks_byte_for_byte(album: ImmichSite, search: Search, body: dict[str, Any]) -> None:
    same_as_stock(album, search, body)


def same_as_stock(site: ImmichSite, search: Search, body: dict[str, Any]) -> None:
    plain = {"Accept-Encoding": "identity", "x-api-key": KEY}
    stock = requests.post(f"{site.url}/api/search/smart", json=body, headers=plain, timeout=60)
    sent = site.seen[-1].body
    site.seen.clear()
    ours = search(body, **{"Accept-Encoding": "identity"})
    assert (ours.status_code, ours.content) == (stock.status_code, stock.content)
    assert {**ours.headers, "Date": ""} == {**stock.headers, "Date": ""}
    (seen,) = site.seen
    assert seen.body == sent


def test_switched_off_it_is_stock_byte_for_byte_and_too_slow_a_text_side_does_not_count(
    album: ImmichSite, tmp_path: Path
) -> None:
    def ask(body: dict[str, Any], path: str = "/api/search/smart", **headers: str) -> requests.Response:
        return requests.post(f"{web.url}{path}", json=body, headers={"x-api-key": KEY} | headers, timeout=60)

    with running_web(tmp_path / "off", album.url, web_hybrid="off", web_ocr_prefix="off") as web:
        same_as_stock(album, ask, {"query": "宫保", "size": 5, "page": 2})
        same_as_stock(album, ask, {"query": "ocr:宫保"})
    # A second start, with little patience.
    with running_web(tmp_path / "slow", album.url, web_ocr_timeout=300) as web:
        album.slow = {"/metadata": 20}
        began = time.monotonic()
        assert numbers(ask({"query": "宫保", "size": 5})) == [1, 2, 3, 4, 5]
        assert time.monotonic() - began < 15
        assert "over 300 ms (web_ocr_timeout)" in web.whole_log()
        # With the machine learning down there is no order of the picture to save time for.
        album.slow, album.ml_is_down = {"/metadata": 1}, True
        assert numbers(ask({"query": "宫保"})) == [20, 25, 5]


def test_the_side_of_the_text_may_take_as_long_as_the_search_by_picture(album: ImmichSite, tmp_path: Path) -> None:
    """With slow machine learning one waits anyway; what is found by then costs nobody anything."""
    with running_web(tmp_path / "web", album.url, web_ocr_timeout=600) as web:
        album.slow = {"/metadata": 1, "/smart": 5}
        body, headers = {"query": "宫保", "size": 8}, {"x-api-key": KEY}
        answer = requests.post(f"{web.url}/api/search/smart", json=body, headers=headers, timeout=60)
        assert numbers(answer)[:5] == [5, 20, 25, 1, 2]
        assert "by the picture alone" not in web.whole_log()
