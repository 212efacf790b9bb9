"""The service refuses to start while it is open which model answers, and says so later, when routes change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from stand_in_triton import write_routes

from immich_triton.core.errors import ProtocolError
from immich_triton.ml.route_file import Route, RouteError, read_route, write_route
from immich_triton.mt_photos.service import Service
from immich_triton.mt_photos.settings import Settings


def settings_for(directory: Path, clip: str = "") -> Settings:
    return dataclasses.replace(Settings(), models=directory / "models", state_dir=directory / "state", clip=clip)


def add_another(models: Path) -> None:
    route = read_route(models / "clip/route.toml")
    (models / "other").mkdir()
    names = ["ViT-B-32__openai"]
    write_route(models / "other", Route("clip", names, route.pipelines, "d" * 64, dimension=512))


async def test_routes_are_chosen_by_task(tmp_path: Path) -> None:
    write_routes(tmp_path / "models")
    service = Service()
    service.configure(settings_for(tmp_path))
    assert service.route("clip").dimension == 512
    with pytest.raises(ProtocolError, match="no model is routed for facial-recognition") as refused:
        service.route("facial-recognition")
    assert refused.value.status == 503


async def test_several_encoders_stop_the_start_and_change_nothing(tmp_path: Path) -> None:
    add_another(write_routes(tmp_path / "models"))
    service = Service()
    for look in (Service.check, service.configure):
        with pytest.raises(RouteError, match="set mt_photos_clip to one of"):
            look(settings_for(tmp_path))
    assert not service.is_configured
    service.configure(settings_for(tmp_path, "ViT-B-32__openai"))
    assert service.route("clip").source.parent.name == "other"


async def test_an_encoder_that_comes_later_is_not_mixed_in(tmp_path: Path) -> None:
    models = write_routes(tmp_path / "models")
    service = Service()
    service.configure(settings_for(tmp_path))
    add_another(models)
    watch = service.need(service._routes)
    watch.look_again()
    watch.look_again()
    with pytest.raises(ProtocolError, match="set mt_photos_clip to one of"):
        service.route("clip")
