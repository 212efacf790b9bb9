"""That the stock ML answered in Triton's place is written down as what happened, not read off how long it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from configured_service import configured_service
from looked_at import ocr_answer
from mitmproxy.http import Headers, HTTPFlow, Request
from mitmproxy.test import tflow
from recorder import Recorder, recording_upstream
from stand_in_triton import StandInTriton, stand_in_triton

from harness.program import eventually
from immich_triton.core import flow_state, timing
from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.inspect.comments import Comments
from immich_triton.inspect.contentview import request_lines
from immich_triton.ml.gateway import Gateway
from immich_triton.ml.service import Service
from immich_triton.proxy.flow_kind import set_kind

AWAY = ", but Triton was away: passed through · "
OCR = "ocr PP-OCRv5_mobile → ocr"


@dataclass
class Hooks:
    """The hooks that answer a prediction and comment on it, between stand-ins for Triton and for the stock ML."""

    service: Service
    triton: StandInTriton
    stock: Recorder

    async def answer(self, *tasks: str) -> HTTPFlow:
        """Return the flow of a request for *tasks*, answered and commented on."""
        content_type, body = encode(
            {name: entry for task in tasks for name, entry in entries_for(task).items()}, image=b"image"
        )
        request = Request.make("POST", f"{self.stock.url}/predict", body, Headers(content_type=content_type))
        flow = tflow.tflow(req=request)
        set_kind(flow, self.service.id, "predict")
        await Gateway(self.service).request(flow)
        assert flow.response
        Comments(self.service).response(flow)
        return flow

    def send_triton_away(self) -> None:
        self.triton.behaviour["ocr"] = "reset"
        self.triton.unready.add("ocr")

    def bring_triton_back(self) -> None:
        self.triton.behaviour.clear()
        self.triton.unready.clear()


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    with stand_in_triton() as triton, recording_upstream() as stock:
        stock.answer = (200, ocr_answer(1))
        async with configured_service(tmp_path, triton.url, immich_fallback_tasks=["ocr"]) as service:
            yield Hooks(service, triton, stock)


def parts_of(flow: HTTPFlow) -> dict[str, float]:
    assert flow.response
    return timing.parse(flow.response.headers)


def who_answered(flow: HTTPFlow) -> str:
    assert flow.response
    return timing.who_answered(flow.response.headers)


def view_of(flow: HTTPFlow) -> str:
    """Return what mitmweb's view of the request says last."""
    *_, last = request_lines(flow.request.headers["content-type"], flow.request.raw_content or b"", flow)
    return last


def status_of(flow: HTTPFlow) -> int:
    assert flow.response
    return flow.response.status_code


async def test_what_triton_answers_did_not_fall_back(hooks: Hooks) -> None:
    flow = await hooks.answer("ocr")
    assert status_of(flow) == 200
    assert not flow_state.FELL_BACK.get(flow)
    assert flow.comment.startswith(f"{OCR} · ")


async def test_what_the_stock_ml_answers_in_its_place_fell_back(hooks: Hooks) -> None:
    hooks.send_triton_away()
    flow = await hooks.answer("ocr")
    assert status_of(flow) == 200
    assert flow_state.FELL_BACK.get(flow)
    assert flow.comment.startswith(f"{OCR}{AWAY}")
    assert "upstream" in parts_of(flow)
    assert who_answered(flow) == "fallback"
    assert view_of(flow) == f"answered by: {OCR}{AWAY.removesuffix(' · ')}"


async def test_what_the_stock_ml_could_not_answer_either_and_triton_did_in_the_end_did_not_fall_back(
    hooks: Hooks,
) -> None:
    hooks.send_triton_away()
    hooks.stock.answer = (500, b'{"detail":"no memory"}')
    asked = asyncio.create_task(hooks.answer("ocr"))
    assert await asyncio.to_thread(eventually, lambda: len(hooks.stock.predictions()) == 1)
    hooks.bring_triton_back()
    flow = await asked
    assert status_of(flow) == 200
    assert "upstream" in parts_of(flow), "it was asked"
    assert who_answered(flow) == "triton"
    assert view_of(flow) == f"answered by: {OCR}"
    assert not flow_state.FELL_BACK.get(flow)
    assert flow.comment.startswith(f"{OCR} · ")


async def test_of_a_request_in_two_parts_only_what_is_routed_falls_back(hooks: Hooks) -> None:
    both = f"{OCR}, facial-recognition buffalo_l passed through"
    flow = await hooks.answer("ocr", "faces")
    assert not flow_state.FELL_BACK.get(flow), "the other part is the stock ML's anyway"
    assert flow.comment.startswith(f"{both} · ")
    hooks.send_triton_away()
    flow = await hooks.answer("ocr", "faces")
    assert status_of(flow) == 200
    assert flow_state.FELL_BACK.get(flow)
    assert flow.comment.startswith(f"{both}{AWAY}")


async def test_a_request_that_fails_fell_back_to_nobody(hooks: Hooks) -> None:
    hooks.send_triton_away()
    hooks.stock.answer = (500, b'{"detail":"no memory"}')
    flow = await hooks.answer("ocr", "faces")
    assert status_of(flow) == 500
    assert view_of(flow) == f"meant for: {OCR}, facial-recognition buffalo_l passed through"
    assert not flow_state.FELL_BACK.get(flow)
    assert flow.comment.startswith("500 no memory · ")
