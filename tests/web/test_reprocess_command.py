"""``immich-triton reprocess``: which photos it takes, that they are processed, and what it says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from gateway_process import GatewayProcess
from immich_photos import KEY, OTHER_KEY, WEAK_KEY, Photo, photo_id
from immich_queues import Redis, Worker, running_redis, running_worker
from immich_site import ImmichSite
from site_process import running_web

from immich_triton.cli import reprocess
from immich_triton.immich import own_assets
from immich_triton.immich.own_assets import OwnAssets

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(queues: Redis, shared_site: ImmichSite) -> Iterator[Worker]:
    with running_worker("bullmq-5-80", queues.port, shared_site.url) as running:
        yield running


@pytest.fixture(scope="module")
def web(
    shared_site: ImmichSite, queues: Redis, worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with running_web(tmp_path_factory.mktemp("web"), shared_site.url, web_redis_url=queues.url) as process:
        yield process


@pytest.fixture
def run(
    web: GatewayProcess, site: ImmichSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Give the command: ``run(*arguments)`` returns the exit code, and what was printed and complained."""
    monkeypatch.setenv("IMMICH_API_KEY", KEY)
    monkeypatch.setattr(reprocess, "PAUSE", 0.02)

    def command(*arguments: str, immich: str = web.url) -> tuple[int, str, str]:
        code = reprocess.main(["--immich", immich, *arguments])
        return code, *capsys.readouterr()

    return command


def test_photos_by_their_ids_get_both(run: Run, site: ImmichSite) -> None:
    site.photos = [Photo(number, ["合计"]) for number in range(1, 5)]
    code, said, _ = run(photo_id(1), photo_id(2).upper(), photo_id(2), "--task", "both")
    assert code == 0
    assert "refresh-ocr: 2 photos and videos\n       2  done\n" in said
    assert "refresh-clip: 2 photos and videos\n       2  done\n" in said
    assert [(photo.read, photo.embedded) for photo in site.photos] == [(1, 1), (1, 1), (0, 0), (0, 0)]


@pytest.mark.parametrize("option", ["--lost", "--empty-ocr"])
def test_of_all_photos_those_without_text_are_read_and_what_was_lost_is_told(
    run: Run, site: ImmichSite, option: str
) -> None:
    site.photos = [
        Photo(1, ["合计"]),
        Photo(2, lost=["收据"]),
        Photo(3),
        Photo(4, lost=["菜单"], visibility="archive"),
        Photo(5, owner=OTHER_KEY),
    ]
    code, said, _ = run(option)
    assert code == 0
    assert "2 had been lost: they have text again." in said
    assert "1  done, as far as can be seen" in said
    assert [photo.read for photo in site.photos] == [0, 1, 1, 1, 0]
    assert run(option, "--dry-run")[1] == f"{photo_id(3)}\n"


def test_photos_whose_text_immich_does_not_find_any_more_are_found_by_their_own_lines(
    run: Run, site: ImmichSite
) -> None:
    site.photos = [
        Photo(1, ["川味小馆", "宫保鸡丁", "38元"]),
        Photo(2, ["川味小馆", "宫保鸡丁", "38元"], emptied=True),
        Photo(3, ["emergency exit"], emptied=True, visibility="archive"),
        Photo(4, ["emergency exit"], visibility="archive"),
        Photo(5, ["38", "¥"], emptied=True),
        Photo(6),
    ]
    assert run("--broken", "--dry-run")[1] == f"{photo_id(2)}\n{photo_id(3)}\n"
    assert run("--broken")[0] == 0
    assert [photo.read for photo in site.photos] == [0, 1, 1, 0, 0, 0]
    assert run("--broken")[1] == "There is nothing to do.\n"


def test_a_dry_run_names_the_photos_and_changes_nothing(run: Run, site: ImmichSite, queues: Redis) -> None:
    site.photos = [Photo(1), Photo(2)]
    before = queues.content()
    code, said, complained = run("--lost", "--dry-run")
    assert (code, said) == (0, f"{photo_id(2)}\n{photo_id(1)}\n")
    assert "2 photos and videos; nothing was changed" in complained
    assert queues.content() == before
    assert site.jobs == []


@pytest.mark.parametrize("name", ["Receipts", "album-1"])
def test_an_album_by_name_or_id_without_what_others_put_in(run: Run, site: ImmichSite, name: str) -> None:
    site.version = "3.1.0"
    site.albums, site.album_members = {"album-1": "Receipts", "album-2": "Others"}, {"album-1": [OTHER_KEY]}
    site.photos = [Photo(1, albums=("album-1",)), Photo(2), Photo(3, owner=OTHER_KEY, albums=("album-1",))]
    assert run("--album", name, "--dry-run")[1] == f"{photo_id(1)}\n"


def test_an_album_that_is_none_or_several_is_told(run: Run, site: ImmichSite) -> None:
    site.albums = {"album-1": "Receipts", "album-2": "Receipts"}
    assert run("--album", "Menus")[::2] == (1, "reprocess: there is no album 'Menus'\n")
    code, _, complained = run("--album", "Receipts")
    assert (code, "album-1, album-2" in complained) == (1, True)


def test_what_a_search_finds_first(run: Run, site: ImmichSite) -> None:
    site.photos = [Photo(number, ["合计" if number % 2 else "exit"]) for number in range(1, 9)]
    found = run("--search", "ocr:合计", "--limit", "3", "--dry-run")[1].split()
    assert len(found) == 3
    assert set(found) <= {photo_id(number) for number in (1, 3, 5, 7)}


def test_a_failed_run_is_told_and_ends_with_1(run: Run, site: ImmichSite) -> None:
    site.photos, site.ml_is_down = [Photo(1, ["合计"])], True
    code, said, _ = run(photo_id(1))
    assert code == 1
    assert f"is its machine learning up and on?:\n  {photo_id(1)}\n" in said


def test_of_many_one_that_is_not_ours_keeps_no_other_from_being_read(run: Run, site: ImmichSite) -> None:
    site.photos = [Photo(number, ["合计"], owner=OTHER_KEY if number == 4 else KEY) for number in range(1, 8)]
    code, said, _ = run(*(photo_id(number) for number in range(1, 9)))
    assert code == 1
    assert [photo.read for photo in site.photos] == [1, 1, 1, 0, 1, 1, 1]
    assert f"not yours, locked or unknown:\n  {photo_id(4)}\n  {photo_id(8)}\n" in said


def test_a_queue_that_does_not_get_on_is_not_waited_for(run: Run, site: ImmichSite, worker: Worker) -> None:
    site.photos = [Photo(number, ["合计"]) for number in range(1, 61)]
    worker.pause("ocr")
    code, said, _ = run(*(photo.id for photo in site.photos), "--timeout", "0.1")
    assert code == 1
    assert "is the queue paused" in said
    assert "50  still in Immich's queue" in said
    assert "10  not ordered" in said
    worker.resume("ocr")


def test_immich_itself_is_no_address_for_this(run: Run, site: ImmichSite) -> None:
    site.photos = [Photo(1)]
    code, _, complained = run(photo_id(1), immich=site.url)
    assert (code, "give that of immich_web" in complained) == (1, True)


def test_a_permission_that_the_key_lacks_is_named(run: Run, site: ImmichSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.photos, site.lacking = [Photo(1)], {"job.create"}
    monkeypatch.setenv("IMMICH_API_KEY", WEAK_KEY)
    code, _, complained = run(photo_id(1))
    assert (code, "with the permission job.create" in complained) == (1, True)


@pytest.mark.parametrize(
    "arguments", [[], ["x"], [photo_id(1), "--lost"], ["--album", "a", "--search", "b"]], ids=["none", "word", "2", "3"]
)
def test_what_cannot_be_chosen_is_2(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)


def test_without_a_key_it_is_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMMICH_API_KEY")
    with pytest.raises(SystemExit, match="2"):
        run(photo_id(1))


async def test_all_assets_are_found_once_though_some_come_and_go(
    site: ImmichSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five photos a page, three of one second in no order, and with each page one that goes and one that comes."""
    monkeypatch.setattr(own_assets, "PAGE", 5)
    site.photos = [Photo(number, second=number // 3) for number in range(1, 40)]
    wanted, found = {photo.id for photo in site.photos}, []
    async with OwnAssets(site.url, KEY) as immich:
        async for asset in immich.all():
            found.append(asset)
            if not len(found) % 5:
                site.photos.remove(next(photo for photo in site.photos if photo.id in found))
                site.photos.append(Photo(1000 + len(found), second=999))
    assert len(found) == len(set(found))
    assert wanted == set(found)


async def test_more_assets_of_one_instant_than_a_page_holds(site: ImmichSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_assets, "PAGE", 5)
    site.version = "3.1.0"  # before, there is no order among them that pages could follow
    site.photos = [Photo(number, second=number // 13) for number in range(1, 40)]
    async with OwnAssets(site.url, KEY) as immich:
        assert [asset async for asset in immich.all()] == [photo_id(number) for number in range(39, 0, -1)]
