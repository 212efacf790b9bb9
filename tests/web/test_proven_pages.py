"""Immich is asked about what only the database found for the page that is shown, and for later ones when they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest
from gateway_process import GatewayProcess, kept
from immich_photos import OTHER_KEY, Photo
from immich_site import ImmichSite
from postgres_server import Cluster, ImmichDatabase, without_zhparser
from site_process import running_web
from site_searches import Search, checks, fill, numbers

LOST = range(100, 140)
"""Photos with 礼堂 that Immich's own search has lost; by their text from the last to the first."""


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> ImmichDatabase:
    return without_zhparser(postgres)


@pytest.fixture(scope="module")
def web(
    shared_site: ImmichSite, database: ImmichDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("web")
    url = kept(directory, database.url)
    with running_web(directory, shared_site.url, web_depth=10, web_ocr_timeout=10_000, web_database_url=url) as process:
        yield process


@pytest.fixture
def library(site: ImmichSite, database: ImmichDatabase) -> ImmichSite:
    database.run("TRUNCATE asset CASCADE")
    fill(site, database, [Photo(number) for number in range(1, 31)])
    fill(site, database, [Photo(number, ["礼堂" + "门" * (number - LOST[0])]) for number in LOST])
    for photo in site.photos:
        photo.lines = []
    return site


def pages(search: Search, size: int) -> list[list[int]]:
    """Return all pages, of which none may be empty."""
    found: list[list[int]] = []
    page: str | None = "1"
    while page:
        answer = search({"query": "礼堂", "size": size, "page": int(page)})
        found.append(numbers(answer))
        assert found[-1]
        page = answer.json()["assets"]["nextPage"]
    return found


def asked(site: ImmichSite) -> list[int]:
    by_id = {photo.id: photo.number for photo in site.photos}
    return sorted(by_id[body["id"]] for body in checks(site))


def belong_to_another(site: ImmichSite, photos: Collection[int]) -> None:
    for photo in site.photos:
        if photo.number in photos:
            photo.owner = OTHER_KEY


def test_immich_is_asked_for_what_the_page_shows_and_for_the_next_when_that_is_asked_for(
    library: ImmichSite, search: Search
) -> None:
    # By picture 1 to 10, by text 100 to 139: one of each in turns.
    assert numbers(search({"query": "礼堂", "size": 8})) == [1, 100, 2, 101, 3, 102, 4, 103]
    assert asked(library) == [100, 101, 102, 103]
    library.seen.clear()
    assert numbers(search({"query": "礼堂", "size": 8, "page": 2})) == [5, 104, 6, 105, 7, 106, 8, 107]
    assert asked(library) == [104, 105, 106, 107]


def test_every_photo_comes_once(library: ImmichSite, search: Search) -> None:
    found = pages(search, 8)  # each has something on it
    assert sorted(number for page in found for number in page) == [*range(1, 31), *LOST]


def test_photos_of_others_leave_neither_a_gap_nor_another_place(library: ImmichSite, search: Search) -> None:
    belong_to_another(library, range(100, 136))
    assert numbers(search({"query": "礼堂", "size": 8})) == [1, 136, 2, 137, 3, 138, 4, 139]
    assert [number for page in pages(search, 8) for number in page] == [
        *(1, 136, 2, 137, 3, 138, 4, 139),
        *range(5, 31),
    ]


def test_what_was_withdrawn_since_leaves_no_gap_on_a_later_page(library: ImmichSite, search: Search) -> None:
    first = numbers(search({"query": "礼堂", "size": 8}))
    belong_to_another(library, (104, 106))
    second = numbers(search({"query": "礼堂", "size": 8, "page": 2}))
    assert second == [5, 6, 105, 7, 8, 107, 9, 108]
    assert numbers(search({"query": "礼堂", "size": 8, "page": 2})) == second
    third = numbers(search({"query": "礼堂", "size": 8, "page": 3}))
    assert third == [10, 109, *range(110, 116)]
    assert numbers(search({"query": "礼堂", "size": 8})) == first


def test_a_page_that_is_jumped_to_is_the_one_that_comes_in_order(library: ImmichSite, search: Search) -> None:
    belong_to_another(library, range(104, 120))
    in_order = pages(search, 8)
    numbers(search({"query": "礼堂", "size": 8}))
    for page in (3, 2, 4):
        assert numbers(search({"query": "礼堂", "size": 8, "page": page})) == in_order[page - 1]


def test_no_page_is_announced_on_which_only_others_have_photos(library: ImmichSite, search: Search) -> None:
    library.photos = [photo for photo in library.photos if photo.number <= 4 or photo.number in LOST]
    library.by_picture = {"礼堂": [1, 2, 3, 4]}
    belong_to_another(library, range(104, 140))
    answer = search({"query": "礼堂", "size": 8})
    assert numbers(answer) == [1, 100, 2, 101, 3, 102, 4, 103]
    assert answer.json()["assets"]["nextPage"] is None


@pytest.mark.parametrize("version", ["3.2.0"])
def test_the_one_page_of_a_structured_search_is_full(library: ImmichSite, search: Search, version: str) -> None:
    library.version = version
    belong_to_another(library, range(100, 110))
    body = {"query": "礼堂", "size": 8, "filter": {"isFavorite": {"eq": False}}}
    assert numbers(search(body)) == [1, 110, 2, 111, 3, 112, 4, 113]
