"""What the addons share: settings, routes, ledger, the client of Triton."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from configured_service import configured_service
from stand_in_triton import CLIP_NAME, OCR_NAME, StandInTriton, stand_in_triton, write_routes

from harness.program import eventually
from immich_triton.core.errors import ProtocolError
from immich_triton.ml import service as service_module
from immich_triton.ml.ledger import Ledger, LedgerError
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.service import Service
from immich_triton.ml.settings import Settings
from immich_triton.proxy.progress import BUDGET
from immich_triton.triton.inference import Call, WrongWeights


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture
async def service(triton: StandInTriton, tmp_path: Path) -> AsyncIterator[Service]:
    triton.unready.clear()
    async with configured_service(tmp_path, triton.url) as service:
        yield service


async def test_empty_it_answers_503_to_whatever_is_asked_of_it() -> None:
    service = Service()
    for ask in (
        lambda: service.table,
        lambda: service.ownership,
        lambda: service.triton,
        service.watch,
        lambda: service.refuse_owned(CLIP_NAME),
    ):
        with pytest.raises(ProtocolError, match="no valid configuration"):
            ask()
    with pytest.raises(ProtocolError):
        await service.settled()
    service.close()


async def test_settings_that_cannot_work_change_nothing(service: Service, tmp_path: Path) -> None:
    before, table, client = service.settings, service.table, service.triton
    with pytest.raises(RouteError, match="does not exist"):
        service.configure(replace(before, models=tmp_path / "nowhere", deadline=1))
    (tmp_path / "damaged").mkdir()
    Ledger(tmp_path / "damaged").path.write_text("{")
    for take in (service.configure, Service.check):
        with pytest.raises(LedgerError):
            take(replace(before, state_dir=tmp_path / "damaged", deadline=1))
    assert (service.settings, service.table, service.triton) == (before, table, client)


async def test_only_what_concerns_the_client_makes_a_new_one(service: Service) -> None:
    client, before = service.triton, service.settings
    service.configure(replace(before, deadline=1, max_waiting=before.max_waiting + 1))
    assert service.triton is client
    assert before.max_waiting + 1 == BUDGET.limit
    service.configure(replace(before, triton_timeout=1))
    assert service.triton is not client


async def test_other_models_are_other_routes(service: Service, tmp_path: Path) -> None:
    table = service.table
    service.configure(replace(service.settings, deadline=1))
    assert service.table is table
    (write_routes(tmp_path / "others") / "ocr_rec/route.toml").unlink()
    service.configure(replace(service.settings, models=tmp_path / "others"))
    assert service.table.find("ocr", OCR_NAME) is None
    await service.settled()  # they are watched too


async def test_a_client_ends_when_the_requests_of_its_time_have(service: Service) -> None:
    client, answered = service.triton, asyncio.Event()

    async def answer() -> None:
        await answered.wait()

    work = asyncio.create_task(answer())
    service.track(work)
    service.configure(replace(service.settings, triton_timeout=1))
    (closing,) = (task for task in asyncio.all_tasks() if task.get_name().startswith("close a client"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    answered.set()
    await closing
    assert work.done()
    assert not service._requests
    assert service.triton is not client


async def test_what_is_missing_for_any_route(service: Service, triton: StandInTriton) -> None:
    assert await service.why_not_ready(within=60) == {}
    triton.unready.add("textual")
    assert await service.why_not_ready(within=60) == {"textual": "not ready in Triton"}


async def test_whose_requests_wait_and_whose_weights_are_in_doubt_is_missing_too(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines = {pipeline.name: pipeline for pipeline in service.table.pipelines()}
    service.triton.breaker(pipelines["ocr"]).open("a process died", stuck=True)
    service.doubts.add(pipelines["clip_text"], WrongWeights("others"))
    assert await service.why_not_ready(within=60) == {"ocr": "a process died", "clip_text": "others"}
    # Asked again it answers right.
    monkeypatch.setattr(service_module, "DOUBT_INTERVAL", 0.0)
    service.look_after_doubts()
    in_doubt = service.doubts.about
    assert await asyncio.to_thread(eventually, lambda: in_doubt(service.table.routes) == {})


async def test_a_name_that_was_ours_is_not_let_go(service: Service) -> None:
    service.refuse_owned("ViT-B-32__openai")
    Ledger(service.settings.state_dir).own("ViT-B-32__openai", "c" * 64)
    with pytest.raises(ProtocolError, match=f"has no route in {service.settings.models}"):
        service.refuse_owned("ViT-B-32__openai")


async def test_its_client_is_made_once_and_answers(service: Service) -> None:
    (pipeline,) = (pipeline for pipeline in service.table.pipelines() if pipeline.name == "ocr")
    answer = await service.triton.infer(Call(pipeline, "IMAGE", b"image", ("IMAGE_SIZE",)), 60)
    assert np.array_equal(answer["IMAGE_SIZE"], [[48, 64]])
    assert service.triton is service.triton


def test_what_never_had_valid_settings_is_not_configured(tmp_path: Path) -> None:
    service = Service()
    assert not service.is_configured
    with pytest.raises(RouteError, match="does not exist"):
        service.configure(Settings(models=tmp_path / "nowhere", state_dir=tmp_path))
    assert not service.is_configured
