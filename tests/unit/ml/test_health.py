"""``GET /ping``: pong when every route is ready, else 503 with what is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from configured_service import configured_service
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.test import tflow
from stand_in_triton import StandInTriton, stand_in_triton

from immich_triton.core.json_text import dump
from immich_triton.ml.health import Health
from immich_triton.ml.service import Service
from immich_triton.proxy.flow_kind import FlowKind, set_kind


@pytest.fixture
async def triton() -> AsyncIterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture
async def service(triton: StandInTriton, tmp_path: Path) -> AsyncIterator[Service]:
    async with configured_service(tmp_path, triton.url) as service:
        yield service


def flow_of(service: Service, kind: FlowKind = "ping") -> HTTPFlow:
    flow = tflow.tflow()
    set_kind(flow, service.id, kind)
    return flow


async def ping(service: Service) -> Response:
    flow = flow_of(service)
    await Health(service).request(flow)
    assert flow.response
    return flow.response


def is_refusal(response: Response, detail: str) -> bool:
    return (response.status_code, response.content) == (503, dump({"detail": detail}))


async def test_pong_is_what_immich_waits_for(service: Service) -> None:
    response = await ping(service)
    assert (response.status_code, response.content) == (200, b"pong")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_what_is_missing_is_named(service: Service, triton: StandInTriton) -> None:
    triton.unready.add("visual")
    assert is_refusal(await ping(service), "visual: not ready in Triton")
    triton.unready.add("ocr_det")
    response = await ping(service)
    assert response.status_code == 503
    for model in ("visual", "ocr_det"):
        assert f"{model}: not ready in Triton" in (response.text or "")


async def test_who_stops_is_not_asked(service: Service, triton: StandInTriton) -> None:
    service.draining = True
    assert is_refusal(await ping(service), "immich-triton is stopping")
    assert triton.probes == 0


async def test_without_settings_nothing_is_ready() -> None:
    response = await ping(Service())
    assert response.status_code == 503
    assert b"no valid configuration" in (response.content or b"")


async def test_a_fault_of_ours_is_an_answer_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*, within: float) -> dict[str, str]:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(service, "why_not_ready", broken)
    assert is_refusal(await ping(service), "internal error in the gateway: ZeroDivisionError('of all things')")


@pytest.mark.parametrize("kind", ["predict", "pass", "refused"])
async def test_nothing_else_is_answered(service: Service, kind: FlowKind) -> None:
    flow = flow_of(service, kind)
    await Health(service).request(flow)
    assert flow.response is None
