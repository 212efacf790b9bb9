"""Which models Triton should have, and what changed in the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_models import write_model, write_ocr_route

from immich_triton.ml.route_file import Route, write_route
from immich_triton.server.triton_models import (
    PIPELINES,
    RepositoryWatch,
    loading_order,
    routed_pipelines,
    routes_of,
    wanted_models,
)
from immich_triton.triton.pipelines import Pipeline


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in (*PIPELINES, "ocr_det", "mine"):
        write_model(tmp_path, name)
    (tmp_path / "README.md").touch()
    (tmp_path / ".new-model").mkdir()
    write_ocr_route(tmp_path / "ocr")
    return tmp_path


def test_everything_that_is_a_folder_is_wanted(models: Path) -> None:
    assert wanted_models(models, only_routed=False) == {*PIPELINES, "ocr_det", "mine"}


def test_pipelines_without_a_route_are_not_when_only_routed_ones_are(models: Path) -> None:
    assert wanted_models(models, only_routed=True) == {"mine", "ocr", "ocr_det"}


@pytest.mark.parametrize("text", ["", "pipelines = 3", "pipelines = [3]", "[[pipelines]]\nnome = 'x'", "\0", "[["])
def test_an_unreadable_route_names_no_pipeline(models: Path, text: str) -> None:
    (models / "mine/route.toml").write_text(text)
    assert routed_pipelines(models) == {"ocr"}


def test_a_search_is_loaded_first_then_ocr_and_faces_and_the_networks_before_their_pipeline(tmp_path: Path) -> None:
    image = Pipeline("clip_image", ["visual"], ["visual"])
    text = Pipeline("clip_text", ["textual"], ["textual"])
    ocr = Pipeline("ocr", ["detection", "recognition"], ["ocr_rec", "ocr_det"])
    faces = Pipeline("faces", ["detection", "recognition"], ["scrfd", "arcface"])
    routes = {"visual": ("clip", [image, text]), "ocr_det": ("ocr", [ocr]), "arcface": ("facial-recognition", [faces])}
    for name in (*PIPELINES, "visual", "textual", "ocr_det", "ocr_rec", "scrfd", "arcface", "mine"):
        write_model(tmp_path, name)
    for name, (task, pipelines) in routes.items():
        write_route(tmp_path / name, Route(task, ["name"], pipelines, "0" * 64))
    wanted = wanted_models(tmp_path, only_routed=True)
    order = ["textual", "clip_text", "ocr_det", "ocr_rec", "ocr", "arcface", "scrfd", "faces", "visual", "clip_image"]
    assert loading_order(tmp_path, wanted) == [*order, "mine"]
    assert loading_order(tmp_path, wanted - {"textual", "faces"}) == [
        name for name in [*order, "mine"] if name not in ("textual", "faces")
    ]


@pytest.mark.parametrize("models_of_it", ["3", "[3, [4]]", "'ocr'", "{a = 1}"])
def test_a_strange_route_spoils_no_order(models: Path, models_of_it: str) -> None:
    (models / "mine/route.toml").write_text(f"pipelines = [{{name = 'ocr', models = {models_of_it}}}]")
    wanted = {"mine", "ocr", "ocr_det"}
    assert set(loading_order(models, wanted)) == wanted


def test_a_change_is_told_once_and_only_when_it_has_settled(models: Path) -> None:
    watch = RepositoryWatch(models, only_routed=False)
    assert watch.changes() == {}
    (models / "mine/1/model.py").write_text("# half")
    assert watch.changes() == {}
    (models / "mine/1/model.py").write_text("# the whole file")
    assert watch.changes() == {}
    assert watch.changes() == {"mine": "load"}
    assert watch.changes() == {}


def test_folders_that_come_and_go_are_loaded_and_unloaded(models: Path) -> None:
    watch = RepositoryWatch(models, only_routed=False)
    shutil.rmtree(models / "mine")
    write_model(models, "fresh")
    assert watch.changes() == {}
    assert watch.changes() == {"mine": "unload", "fresh": "load"}


def test_what_triton_and_the_gateway_do_not_load_is_no_change(models: Path) -> None:
    watch = RepositoryWatch(models, only_routed=False)
    (models / "mine/route.toml").touch()
    (models / "mine/1/__pycache__").mkdir()
    (models / "mine/1/__pycache__/model.pyc").touch()
    (models / "notes.txt").touch()
    assert [watch.changes(), watch.changes()] == [{}, {}]


def test_a_repository_that_is_replaced_is_followed_when_it_is_back(models: Path) -> None:
    watch = RepositoryWatch(models, only_routed=False)
    elsewhere = models.with_name("elsewhere")
    models.rename(elsewhere)
    assert [watch.changes(), watch.changes(), watch.changes()] == [{}, {}, {}]  # away is not removed
    elsewhere.rename(models)
    assert [watch.changes(), watch.changes()] == [{}, {}]


def test_a_route_needs_the_networks_and_the_pipelines_that_it_names(models: Path) -> None:
    image = Pipeline("clip_image", ["visual"], ["visual"])
    text = Pipeline("clip_text", ["textual"], ["textual"])
    write_route(models / "mine", Route("clip", ["ViT-B-32__openai"], [image, text], "0" * 64, 512))
    (models / "ocr_det/route.toml").write_text("[[")
    assert routes_of(models) == {"mine": ("visual", "clip_image", "textual", "clip_text"), "ocr": ("ocr",)}


def test_a_route_that_is_just_being_replaced_is_still_there(models: Path) -> None:
    watch = RepositoryWatch(models, only_routed=True)
    text = (models / "ocr/route.toml").read_text()
    (models / "ocr/route.toml").unlink()
    assert watch.routes() == {"ocr": ("ocr",)}
    (models / "ocr/route.toml").write_text(text)
    assert watch.routes() == {"ocr": ("ocr",)}
    (models / "ocr/route.toml").unlink()
    watch.routes()
    assert watch.routes() == {}
