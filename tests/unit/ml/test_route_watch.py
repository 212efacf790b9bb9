"""Routes are taken over as they were seen twice alike, so never from between the two renames of an export."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mitmproxy.http import Headers
from stand_in_triton import OCR_NAME, stand_in_triton, write_routes

from immich_triton.core.errors import ProtocolError
from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml import route_watch
from immich_triton.ml.gateway import Gateway, Story
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.route_watch import RouteWatch
from immich_triton.ml.routes import RouteTable, load_routes
from immich_triton.ml.service import Service
from immich_triton.ml.settings import Settings


def settings_of(models: Path, **more: object) -> Settings:
    return cast("Settings", SimpleNamespace(models=models, allow_untrained=False, **more))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_routes(tmp_path / "models")


@pytest.fixture
def watch(models: Path) -> RouteWatch:
    return RouteWatch(settings_of(models))


def knows_ocr(watch: RouteWatch) -> bool:
    return watch.table.find("ocr", OCR_NAME) is not None


def test_a_model_that_is_being_replaced_keeps_its_route(watch: RouteWatch, models: Path) -> None:
    for _ in range(3):
        watch.look_again()
        (models / "ocr_rec").rename(models / ".old")
        watch.look_again()  # between the two renames
        assert knows_ocr(watch)
        (models / ".old").rename(models / "ocr_rec")
        watch.look_again()
        assert knows_ocr(watch)


def test_what_is_removed_or_added_counts_from_the_second_look(watch: RouteWatch, models: Path) -> None:
    (models / "ocr_rec").rename(models / ".away")
    watch.look_again()
    assert knows_ocr(watch)
    watch.look_again()
    assert not knows_ocr(watch)
    (models / ".away").rename(models / "ocr_rec")
    watch.look_again()
    assert not knows_ocr(watch)
    watch.look_again()
    assert knows_ocr(watch)


@pytest.mark.parametrize("problem", [RouteError("not valid"), OSError("the network drive is away")])
def test_a_failed_read_is_repeated(
    watch: RouteWatch,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: Exception,
) -> None:
    (models / "ocr_rec/route.toml").unlink()
    watch.look_again()
    with monkeypatch.context() as patch:
        patch.setattr(route_watch, "load_routes", failing(problem))
        for _ in range(3):
            watch.look_again()
            assert knows_ocr(watch)
    watch.look_again()
    assert not knows_ocr(watch)
    assert caplog.text.count("the routes stay as they were") == 1


def test_what_changes_while_it_is_read_is_not_taken_over(
    watch: RouteWatch, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(folder: Path) -> RouteTable:
        (models / "ocr_rec").rename(models / ".old")
        table = load_routes(folder)
        (models / ".old").rename(models / "ocr_rec")
        (models / "ocr_rec/route.toml").touch()
        return table

    (models / "clip/route.toml").touch()
    watch.look_again()
    with monkeypatch.context() as patch:
        patch.setattr(route_watch, "load_routes", slow)
        watch.look_again()
    assert knows_ocr(watch)


def test_a_start_in_the_middle_of_a_replacement_reads_again(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def at_first_not(folder: Path) -> RouteTable:
        calls.append(folder)
        if len(calls) == 1:
            raise RouteError("route.toml: No such file or directory")
        return load_routes(folder)

    monkeypatch.setattr(route_watch, "load_routes", at_first_not)
    assert knows_ocr(RouteWatch(settings_of(models)))
    monkeypatch.setattr(route_watch, "load_routes", failing(RouteError("never valid")))
    with pytest.raises(RouteError, match="never valid"):
        RouteWatch(settings_of(models))


def test_a_route_nested_without_end_is_an_error_like_any_other(models: Path) -> None:
    (models / "ocr_rec/route.toml").write_text("a = " + "[" * 50_000)
    with pytest.raises(RouteError, match=r"ocr_rec/route\.toml"):
        RouteWatch(settings_of(models))


async def test_who_asks_at_the_start_waits_for_the_second_look(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway starts between two renames: OCR has no route, and nobody may send it to the stock ML for that."""
    monkeypatch.setattr(route_watch, "INTERVAL", 0.1)
    (models / "ocr_rec").rename(models / ".old")
    with stand_in_triton() as triton:
        service = Service()
        options: dict[str, Any] = {
            "state_dir": tmp_path / "state",
            "triton_url": triton.url,
            "triton_timeout": 60.0,
            "triton_key": "",
            "max_at_triton": 0,
            "supervisor": None,
            "max_waiting": 1 << 30,
            "max_parts": 100,
            "max_pixels": 1_000_000,
            "deadline": 60.0,
            "fallback_tasks": frozenset(),
        }
        service.configure(settings_of(models, **options))
        assert service.table.find("ocr", OCR_NAME) is None
        content_type, body = encode(entries_for("ocr"), image=b"image")
        request = SimpleNamespace(
            headers=Headers([(b"content-type", content_type.encode())]),
            raw_content=body,
            scheme="http",
            host="h",
            port=1,
        )
        flow = cast("Any", SimpleNamespace(request=request, metadata={}))
        asked = asyncio.create_task(Gateway(service).answer(flow, Story()))
        await asyncio.sleep(0.05)
        assert not asked.done()
        (models / ".old").rename(models / "ocr_rec")
        service.watch()
        response = await asyncio.wait_for(asked, 60)
        service.close()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("close a client")))
    assert response is not None, "released to the stock ML"
    assert response.status_code == 200


async def test_files_that_never_come_to_rest_are_an_answer_too(
    watch: RouteWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route_watch, "SETTLE_WITHIN", 0.05)
    with pytest.raises(ProtocolError, match="change all the time"):
        await watch.settled()
    watch.look_again()
    await watch.settled()


def failing(problem: Exception) -> Any:
    def fail(_folder: Path) -> RouteTable:
        raise problem

    return fail
