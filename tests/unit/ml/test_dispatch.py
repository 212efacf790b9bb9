"""Who answers what: a request is split between Triton and the upstream. Fall-back: test_fell_back.py."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from configured_service import configured_service
from recorder import Recorder, recording_upstream
from stand_in_triton import CLIP_NAME, DIMENSION, OCR_NAME, StandInTriton, stand_in_triton

from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import Timing
from immich_triton.immich.ml_client import entries_for
from immich_triton.ml.dispatch import Question, answer, split
from immich_triton.ml.ledger import Ledger
from immich_triton.ml.protocol import Form
from immich_triton.ml.service import Service
from immich_triton.ml.upstream import UpstreamAnswer
from immich_triton.triton.inference import ServerFault, WrongWeights

OCR, CLIP, FACES = entries_for("ocr"), entries_for("clip"), entries_for("faces")
OTHER_CLIP = entries_for("clip", "ViT-B-32__openai")


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture(scope="module")
def stock() -> Iterator[Recorder]:
    with recording_upstream() as server:
        yield server


@pytest.fixture
async def service(triton: StandInTriton, stock: Recorder, tmp_path: Path) -> AsyncIterator[Service]:
    triton.behaviour.clear()
    triton.calls.clear()
    stock.seen.clear()
    stock.answer = (200, b'{"facial-recognition": [], "imageHeight": 48, "imageWidth": 64}')
    async with configured_service(tmp_path, triton.url) as service:
        yield service


def question(stock: Recorder, seconds: float = 60) -> Question:
    return Question(Form("", b"image", None), stock.url, time.monotonic() + seconds, Timing())


async def ask(service: Service, stock: Recorder, entries: dict[str, Any]) -> tuple[dict[str, Any], Question]:
    ours, others = split(service, entries)
    asked = question(stock)
    return await answer(service, ours, others, asked), asked


async def test_what_no_route_names_is_left_as_it_came(service: Service) -> None:
    forks = {"pets": ["anything"], "ocr": {"detection": {"modelName": "other"}}, **OTHER_CLIP}
    assert split(service, forks) == ([], forks)


async def test_a_routed_task_is_taken_out(service: Service) -> None:
    ours, others = split(service, {**OCR, **FACES})
    assert others == FACES
    assert [(part.route.task, [entry.type for entry in part.entries]) for part in ours] == [
        ("ocr", ["detection", "recognition"])
    ]
    assert ours[0].route is service.table.find("ocr", OCR_NAME)


async def test_the_models_of_a_task_belong_together(service: Service) -> None:
    types = {"detection": {"modelName": OCR_NAME}, "recognition": {"modelName": "M.2"}}
    with pytest.raises(ProtocolError, match=rf"task ocr belong together.*detection {OCR_NAME}, recognition M\.2") as it:
        split(service, {"ocr": types})
    assert it.value.status == 400


async def test_a_clip_name_that_was_ours_goes_to_nobody_else(service: Service) -> None:
    Ledger(service.settings.state_dir).own("ViT-B-32__openai", "c" * 64)
    with pytest.raises(ProtocolError, match="was answered by Triton before and has no route"):
        split(service, OTHER_CLIP)


async def test_both_are_asked_and_their_answers_joined(
    service: Service, triton: StandInTriton, stock: Recorder
) -> None:
    joined, asked = await ask(service, stock, {**OCR, **FACES})
    assert joined["ocr"]["text"] == ["text"]
    assert joined["facial-recognition"] == []
    assert (joined["imageHeight"], joined["imageWidth"]) == (48, 64)
    assert triton.calls == ["ocr"]
    (sent,) = stock.predictions()
    assert b"image" in sent.body
    assert b"facial-recognition" in sent.body
    assert b'"ocr"' not in sent.body
    assert asked.timing.at_triton > 0
    assert asked.timing.at_upstream > 0


async def test_a_clip_name_is_owned_when_it_was_answered(
    service: Service, triton: StandInTriton, stock: Recorder
) -> None:
    triton.behaviour["clip_image"] = "other weights"
    with pytest.raises(WrongWeights):
        await ask(service, stock, CLIP)
    assert Ledger(service.settings.state_dir).owned() == {}
    assert list(service.doubts.about(service.table.routes)) == ["clip_image"]
    triton.behaviour.clear()
    joined, _ = await ask(service, stock, CLIP)
    assert len(orjson.loads(joined["clip"])) == DIMENSION
    assert Ledger(service.settings.state_dir).owned() == {CLIP_NAME: "b" * 64}
    assert service.doubts.about(service.table.routes) == {}


async def test_other_weights_than_before_are_not_even_asked(
    service: Service, triton: StandInTriton, stock: Recorder
) -> None:
    Ledger(service.settings.state_dir).own(CLIP_NAME, "c" * 64)
    with pytest.raises(ProtocolError, match="now has other weights"):
        await ask(service, stock, CLIP)
    assert triton.calls == []


@pytest.mark.parametrize("behaviour", ["lying shape", "short", "nan"])
async def test_an_answer_that_cannot_be_read_is_a_fault_of_the_server(
    service: Service, triton: StandInTriton, stock: Recorder, behaviour: str
) -> None:
    triton.behaviour["ocr"] = behaviour
    with pytest.raises(ServerFault):
        await ask(service, stock, OCR)


async def test_an_error_of_one_part_is_that_of_the_whole(service: Service, stock: Recorder) -> None:
    stock.answer = (422, b'{"detail": "Invalid request format."}')
    with pytest.raises(UpstreamAnswer) as caught:
        await ask(service, stock, {**OCR, **FACES})
    assert (caught.value.status, caught.value.body) == stock.answer


async def test_the_time_that_is_left_is_never_less_than_none(stock: Recorder) -> None:
    assert question(stock, seconds=-5).left == 0
    assert 0 < question(stock, seconds=5).left <= 5
