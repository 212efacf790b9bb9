"""The site with Immich's database: what stock does not find is found, and still shown to none but who may see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from gateway_process import GatewayProcess, kept
from immich_photos import KEY, OTHER_KEY, Photo
from immich_site import ImmichSite
from postgres_server import Cluster, ImmichDatabase, running_postgres, without_zhparser
from site_process import running_web
from site_searches import VERSIONS, Search, checks, fill, numbers


@pytest.fixture(scope="module")
def web(
    shared_site: ImmichSite, installed: ImmichDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Give mitmdump with the database; as with the other tests, 10 photos of each search of Immich's."""
    directory = tmp_path_factory.mktemp("web")
    url = kept(directory, installed.url)
    with running_web(directory, shared_site.url, web_depth=10, web_ocr_timeout=10_000, web_database_url=url) as process:
        yield process


@pytest.fixture
def library(site: ImmichSite, installed: ImmichDatabase) -> ImmichSite:
    """Give photos that stand in both, of two users; the text of 7 is lost to Immich's search, not to the database."""
    installed.run("TRUNCATE asset CASCADE")
    fill(
        site,
        installed,
        [
            Photo(1, ["川味小馆", "宫保鸡丁 38元"], favorite=True),
            Photo(2, ["停水通知", "尊敬的业主"]),
            Photo(3, ["臺北車站"], favorite=True),
            Photo(4, ["请勿吸烟 No Smoking", "停水"]),
            Photo(5, ["宫"], owner=OTHER_KEY),
            Photo(6, ["故宫博物院"], hidden_lines=["停水"]),
            Photo(7, ["发票 增值税"]),
            *(Photo(number) for number in range(11, 30)),
        ],
    )
    site.photos[6].lines = []
    return site


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("query", "photos"),
    [
        ("ocr:宫", [1, 6]),
        ("ocr:水", [4, 2]),
        ("ocr:台北", [3]),
        ("ocr:车", [3]),
        ("ocr:发票", [7]),
        ("ocr:元 鸡", [1]),
        ("ocr:通知 业主", [2]),
        ("ocr:机", []),
    ],
)
def test_what_stock_does_not_find(
    library: ImmichSite, search: Search, version: str, query: str, photos: list[int]
) -> None:
    library.version = version
    assert sorted(numbers(search({"query": query}))) == sorted(photos)
    assert sorted(numbers(search({"query": query}, key=OTHER_KEY))) == ([5] if query == "ocr:宫" else [])


def test_the_filters_of_the_caller_decide_and_go_along_unchanged(library: ImmichSite, search: Search) -> None:
    filters = {"isFavorite": True, "personIds": [], "visibility": "timeline", "withExif": True}
    assert numbers(search({"query": "ocr:宫", "language": "zh-CN", **filters})) == [1]
    asked = checks(library)
    assert {body["id"] for body in asked} == {library.photos[0].id, library.photos[4].id, library.photos[5].id}
    assert all(body == {**filters, "id": body["id"], "size": 1, "page": 1} for body in asked)


@pytest.mark.parametrize(
    ("query", "photos"), [("ocr:宫", [1]), ("ocr:台北", [3]), ("宫", [1, 3]), ("海边 ocr:宫", [1]), ("海边 ocr:水", [])]
)
def test_in_the_shape_of_3_2_the_filters_decide_too(
    library: ImmichSite, search: Search, query: str, photos: list[int]
) -> None:
    library.version = "3.2.0"
    library.by_picture = {"宫": [3]}
    filters = {"isFavorite": {"eq": True}, "visibility": {"eq": "timeline"}}
    assert sorted(numbers(search({"query": query, "filter": filters}))) == photos
    assert all(body == {"filter": {**filters, "id": body["filter"]["id"]}, "size": 1} for body in checks(library))
    assert numbers(search({"query": "ocr:宫", "filter": filters}, key=OTHER_KEY)) == []


def test_a_filter_of_ids_is_not_touched(library: ImmichSite, search: Search) -> None:
    library.version = "3.2.0"
    own = {"id": {"eq": library.photos[0].id}}
    assert numbers(search({"query": "ocr:宫", "filter": own})) == []  # as stock
    assert {str(body["filter"]["id"]) for body in checks(library)} == {str(own["id"])}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_mixed_search_has_what_only_the_database_finds_by_picture(
    library: ImmichSite, search: Search, version: str
) -> None:
    library.version = version
    library.by_picture = {"海边": [6, 11, 4, 1, 2, 5, 7]}
    assert numbers(search({"query": "海边 ocr:宫"})) == [6, 1]
    assert numbers(search({"query": "海边 ocr:水"})) == [4, 2]
    assert numbers(search({"query": "海边 ocr:发票"})) == [7]  # lost to Immich's own search
    assert numbers(search({"query": "海边 ocr:停水 smoking"})) == [4]
    assert numbers(search({"query": "海边 ocr:宫"}, key=OTHER_KEY)) == [5]


def test_a_mixed_search_in_an_album_shows_photos_of_the_smart_search(library: ImmichSite, search: Search) -> None:
    library.version = "3.1.0"
    library.photos[0].albums = ("the-album",)
    library.album_members = {"the-album": [OTHER_KEY]}
    library.photos[4].albums = ("the-album",)
    assert numbers(search({"query": "海边 ocr:宫", "albumIds": ["the-album"]})) == [1]


def test_a_photo_of_someone_else_is_asked_for_and_not_shown(library: ImmichSite, search: Search) -> None:
    answer = search({"query": "ocr:故宫"}, key=OTHER_KEY)
    assert numbers(answer) == []
    assert [body["id"] for body in checks(library)] == [library.photos[5].id]
    assert all(request.header("x-api-key") == OTHER_KEY for request in library.seen)


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/api/search/smart", None, 401),
        ("/api/search/smart", "guessed", 401),
        ("/api/search/smart?key=link", None, 403),
    ],
)
@pytest.mark.parametrize("query", ["ocr:宫", "宫"])
def test_who_may_not_search_is_shown_nothing(
    library: ImmichSite, search: Search, query: str, path: str, key: str | None, status: int
) -> None:
    answer = search({"query": query}, path, key)
    assert answer.status_code == status
    assert "items" not in answer.text


def test_when_immich_refuses_the_question_nothing_is_shown(library: ImmichSite, search: Search) -> None:
    """What stands between the database and the caller is one answer: without it there is no photo."""
    library.refuse_ids = True
    assert numbers(search({"query": "ocr:宫"})) == []


def test_a_busy_immich_may_take_its_time_to_confirm_and_what_is_left_out_is_said(
    library: ImmichSite, search: Search, web: GatewayProcess
) -> None:
    """Eight questions at a time on a machine of two cores took a real Immich longer than half a second each."""
    library.slow = {"/metadata": 0.7}
    assert sorted(numbers(search({"query": "ocr:宫"}))) == [1, 6]
    before = web.whole_log().count("a search may lack photos")
    library.slow = {"/metadata": 6}
    assert numbers(search({"query": "ocr:宫"})) == []
    assert web.whole_log().count("a search may lack photos") == before + 1
    assert "of 3 that Immich's own search did not find, 3 were not confirmed within 4 s" in web.whole_log()


def test_several_words_mean_all_of_them(library: ImmichSite, search: Search) -> None:
    # Stock is content with half of them.
    stock = requests.post(
        f"{library.url}/api/search/metadata", json={"ocr": "停水 smoking"}, headers={"x-api-key": KEY}, timeout=60
    )
    assert numbers(stock) == [4, 2]
    assert numbers(search({"query": "ocr:停水 smoking"})) == [4]


def test_texts_are_read_from_the_database_and_not_one_by_one(library: ImmichSite, search: Search) -> None:
    assert numbers(search({"query": "ocr:停水"})) == [4, 2]
    assert not library.of("/ocr")


def test_in_a_smart_search_a_photo_with_the_character_is_lifted(library: ImmichSite, search: Search) -> None:
    order = [*range(11, 30)]
    library.by_picture = {"宫": [*order, 1, 6]}
    found = numbers(search({"query": "宫", "size": 8}))
    # By picture 11 and 12 are 1/61 and 1/62; by text 6 and 1 are, and Immich was asked for each of them.
    assert found[:4] == [11, 6, 12, 1]
    assert {body["id"] for body in checks(library)} >= {library.photos[0].id, library.photos[5].id}
    library.seen.clear()
    library.by_picture = {"宫": [*order[:5], 6, 1, *order[5:]]}
    assert numbers(search({"query": "宫", "size": 4}))[:2] == [6, 1]
    assert not [body for body in checks(library) if body["id"] != library.photos[4].id]  # Immich had shown them


def test_with_ml_down_photos_come_by_their_text_and_those_of_others_tell_nothing(
    library: ImmichSite, search: Search
) -> None:
    library.ml_is_down = True
    pages = [numbers(search({"query": "宫", "size": 1, "page": page})) for page in (1, 2)]
    assert sorted(pages) == [[1], [6]]
    # Somebody else has a photo with this word. That must not make another answer than none having one.
    known, unknown = (search({"query": query}, key=OTHER_KEY) for query in ("故宫", "机场"))
    assert known.status_code == unknown.status_code == 500
    assert known.json() == unknown.json()


def test_in_an_album_only_photos_of_the_smart_search_are_lifted(library: ImmichSite, search: Search) -> None:
    library.version = "3.1.0"
    library.photos[0].albums = library.photos[1].albums = ("the-album",)
    library.album_members = {"the-album": [OTHER_KEY]}
    library.photos[4].albums = ("the-album",)
    assert numbers(search({"query": "宫", "albumIds": ["the-album"]})) == [1, 2]
    assert checks(library) == []


def test_pages_of_what_only_the_database_finds(library: ImmichSite, search: Search, installed: ImmichDatabase) -> None:
    more = [Photo(number, ["会议室"] * (number % 3 + 1)) for number in range(100, 130)]
    fill(library, installed, more)
    for photo in more:
        photo.lines = []  # lost to Immich's own search
    shown: list[int] = []
    page: str | None = "1"
    while page:
        answer = search({"query": "ocr:会议室", "page": int(page), "size": 7})
        found = numbers(answer)
        assert 0 < len(found) <= 7
        shown += found
        page = answer.json()["assets"]["nextPage"]
    assert sorted(shown) == list(range(100, 130))
    assert [number % 3 for number in shown] == [2] * 10 + [1] * 10 + [0] * 10
    more[0].owner = OTHER_KEY
    assert 100 not in numbers(search({"query": "ocr:会议室", "page": 1, "size": 100}))


def test_rights_are_asked_for_each_page(library: ImmichSite, search: Search, installed: ImmichDatabase) -> None:
    more = [Photo(number, ["礼堂"]) for number in range(200, 206)]
    fill(library, installed, more)
    for photo in more:
        photo.lines = []
    first = numbers(search({"query": "ocr:礼堂", "size": 3}))
    for photo in more:
        photo.owner = OTHER_KEY
    assert len(first) == 3
    assert numbers(search({"query": "ocr:礼堂", "size": 3, "page": 2})) == []


def test_the_level_is_said_once(web: GatewayProcess, installed: ImmichDatabase) -> None:
    (line,) = [line for line in web.whole_log().splitlines() if "relevance of text" in line]
    full_text = "full-text search with zhparser" in line
    assert full_text == bool(installed.run("SELECT FROM pg_class WHERE relname = 'immich_triton_asset_ocr_words'"))
    assert "words by jieba" in line


def test_neither_words_nor_address_are_logged(library: ImmichSite, search: Search, web: GatewayProcess) -> None:
    search({"query": "ocr:秘密"})
    log = web.whole_log()
    assert "秘密" not in log
    assert "postgresql://" not in log


def test_a_database_that_goes_away_leaves_the_level_below(site: ImmichSite, tmp_path: Path) -> None:
    with running_postgres() as cluster:
        database = without_zhparser(cluster)
        fill(site, database, [Photo(1, ["宫保鸡丁"]), Photo(2, ["停水通知"]), Photo(3, ["停水"])])
        url = kept(tmp_path, database.url)
        with running_web(tmp_path / "web", site.url, web_ocr_timeout=10_000, web_database_url=url) as web:

            def ask(query: str) -> list[int]:
                body, headers = {"query": query}, {"x-api-key": KEY}
                answer = requests.post(f"{web.url}/api/search/smart", json=body, headers=headers, timeout=60)
                return numbers(answer)

            assert ask("ocr:宫") == [1]
            database.run("REVOKE ALL ON asset_ocr FROM immich_triton")
            for _ in range(3):
                assert ask("ocr:停水") == [3, 2]
                assert ask("停水")[0] == 3
            assert ask("ocr:宫") == []  # as stock
            assert web.whole_log().count("is not asked for 30 seconds") == 1


def test_a_database_that_does_not_answer_costs_one_search_its_text_and_the_next_ones_nothing(
    site: ImmichSite, postgres: Cluster, tmp_path: Path
) -> None:
    database = without_zhparser(postgres)
    fill(site, database, [Photo(1, ["宫保鸡丁"]), Photo(2, ["停水通知"]), Photo(3, ["停水"])])
    url = kept(tmp_path, database.url)
    with running_web(tmp_path / "web", site.url, web_ocr_timeout=3000, web_database_url=url) as web:

        def ask(query: str) -> list[int]:
            body, headers = {"query": query}, {"x-api-key": KEY}
            answer = requests.post(f"{web.url}/api/search/smart", json=body, headers=headers, timeout=60)
            return numbers(answer)

        with database.locked("asset_ocr"):
            assert ask("停水") == [1, 2, 3]
            log = web.whole_log()
            assert "ranked by the picture alone: the side of the text took over 3000 ms (web_ocr_timeout)" in log
            assert ask("停水") == [3, 2, 1]  # by Immich's API
            assert ask("ocr:停水") == [3, 2]
            log = web.whole_log()
        assert log.count("is not asked for 30 seconds") == log.count("by the picture alone") == 1


def test_a_search_by_text_waits_longer_and_then_takes_the_level_below(
    site: ImmichSite, postgres: Cluster, tmp_path: Path
) -> None:
    database = without_zhparser(postgres)
    fill(site, database, [Photo(2, ["停水通知"]), Photo(3, ["停水"])])
    url = kept(tmp_path, database.url)
    with running_web(tmp_path / "web", site.url, web_ocr_timeout=1000, web_database_url=url) as web:
        body, headers = {"query": "ocr:停水"}, {"x-api-key": KEY}
        with database.locked("asset_ocr"):
            answer = requests.post(f"{web.url}/api/search/smart", json=body, headers=headers, timeout=60)
        assert numbers(answer) == [3, 2]
        assert web.whole_log().count("is not asked for 30 seconds") == 1
