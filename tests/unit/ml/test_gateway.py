"""Whatever happens, a request that names a model of ours is answered here, and what is not ours goes on exactly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import override

import orjson
import pytest
from configured_service import configured_service
from mitmproxy.http import Headers, HTTPFlow, Request
from mitmproxy.test import tflow
from stand_in_triton import StandInTriton, stand_in_triton

from harness.program import eventually
from immich_triton.core import flow_state
from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import Observer, Reason, RequestDone
from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml.gateway import Gateway, content_type_of, failure, make_exact
from immich_triton.ml.ledger import LedgerError
from immich_triton.ml.protocol import parse_entries, parse_form
from immich_triton.ml.service import Service
from immich_triton.ml.upstream import UpstreamAnswer
from immich_triton.proxy.flow_kind import may_go_upstream, set_kind
from immich_triton.triton.inference import BadInput, Poison, Refused, ServerFault, Unavailable, WrongWeights


class Told(Observer):
    """Keeps what became of each request."""

    def __init__(self) -> None:
        self.done: list[RequestDone] = []

    @override
    def request_done(self, done: RequestDone) -> None:
        self.done.append(done)


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture
async def service(triton: StandInTriton, tmp_path: Path) -> AsyncIterator[Service]:
    triton.behaviour.clear()
    triton.calls.clear()
    async with configured_service(tmp_path, triton.url) as service:
        yield service


@pytest.fixture
def told(service: Service) -> Told:
    told = Told()
    service.observers.subscribe(told)
    return told


@pytest.fixture
def gateway(service: Service) -> Gateway:
    return Gateway(service)


def request_of(content_type: str, body: bytes) -> Request:
    return Request.make("POST", "http://ml:3003/predict", body, Headers(content_type=content_type))


def flow_of(service: Service, task: str = "ocr", model: str | None = None) -> HTTPFlow:
    flow = tflow.tflow(req=request_of(*encode(entries_for(task, model), image=b"image")))
    set_kind(flow, service.id, "predict")
    return flow


async def test_what_a_route_names_is_answered(service: Service, gateway: Gateway, told: Told) -> None:
    flow = flow_of(service)
    await gateway.request(flow)
    assert flow.response
    assert orjson.loads(flow.response.content or b"")["ocr"]["text"] == ["text"]
    assert "triton;dur=" in flow.response.headers["server-timing"]
    assert not may_go_upstream(flow)
    assert flow_state.ROUTES.get(flow) == "ocr PP-OCRv5_mobile → ocr"
    (done,) = told.done
    assert (done.tasks, done.route, done.has_image, done.status, done.reason) == (("ocr",), "triton", True, 200, "ok")
    assert done.timing.at_triton > 0


async def test_what_none_names_is_released_as_it_is(service: Service, gateway: Gateway, told: Told) -> None:
    flow = flow_of(service, "faces")
    before = flow.request.copy()
    await gateway.request(flow)
    assert flow.response is None
    assert may_go_upstream(flow)
    assert flow.request.get_state() == before.get_state()
    assert (told.done[0].route, told.done[0].status, told.done[0].reason) == ("upstream", 0, "released")


async def test_only_a_prediction_that_nobody_answered_is_looked_at(
    service: Service, gateway: Gateway, triton: StandInTriton, told: Told
) -> None:
    ping, answered, failed = flow_of(service), flow_of(service), flow_of(service)
    set_kind(ping, service.id, "ping")
    answered.response = failure(BadInput("no image"))[0]
    failed.error = tflow.terr()
    stranger = flow_of(Service())
    for flow in (ping, answered, failed, stranger):
        await gateway.request(flow)
    assert (triton.calls, told.done) == ([], [])


async def test_a_fault_is_an_answer_and_written_down(
    service: Service, gateway: Gateway, triton: StandInTriton, told: Told
) -> None:
    triton.behaviour["clip_image"] = "no proof"
    flow = flow_of(service, "clip")
    await gateway.request(flow)
    assert flow.response
    assert flow.response.status_code == 503
    assert not may_go_upstream(flow)
    assert flow_state.FAULT.get(flow) == "WrongWeights"
    assert (told.done[0].status, told.done[0].reason) == (503, "weights")


async def test_work_for_a_client_that_is_gone_is_dropped(
    service: Service, gateway: Gateway, triton: StandInTriton, told: Told
) -> None:
    flow = flow_of(service)
    with triton.holding():
        asked = asyncio.create_task(gateway.request(flow))
        assert await asyncio.to_thread(eventually, lambda: triton.calls == ["ocr"])
        gateway.client_disconnected(tflow.tclient_conn())  # of another one
        gateway.client_disconnected(flow.client_conn)
        await asked
    assert told.done[0].reason == "client_gone"
    assert not may_go_upstream(flow)
    assert gateway._work.get(flow.client_conn) is None


async def test_a_replay_goes_on_when_the_client_that_asked_at_first_leaves(
    service: Service, gateway: Gateway, triton: StandInTriton, told: Told
) -> None:
    flow = flow_of(service)
    flow.is_replay = "request"
    with triton.holding():
        asked = asyncio.create_task(gateway.request(flow))
        assert await asyncio.to_thread(eventually, lambda: triton.calls == ["ocr"])
        gateway.client_disconnected(flow.client_conn)
    await asked
    assert told.done[0].reason == "ok"
    assert gateway._work.get(flow.client_conn) is None


async def test_without_settings_nothing_passes() -> None:
    service = Service()
    flow = flow_of(service, "faces")
    await Gateway(service).request(flow)
    assert flow.response
    assert flow.response.status_code == 503
    assert not may_go_upstream(flow)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ProtocolError(422, "Invalid request format."), 422, "protocol"),
        (ProtocolError(503, "no configuration"), 503, "configuration"),
        (ProtocolError(502, "the stock ML"), 502, "upstream"),
        (BadInput("no image"), 400, "bad_input"),
        (UpstreamAnswer(418, "text/plain", b"a teapot"), 418, "upstream"),
        (Unavailable("away"), 503, "unavailable"),
        (LedgerError("damaged"), 503, "ledger"),
        (Refused("wants a key"), 503, "refused_by_triton"),
        (WrongWeights("others"), 503, "weights"),
        (ServerFault("again and again"), 500, "server_fault"),
        (Poison("it died twice"), 500, "server_fault"),
        (asyncio.CancelledError("the client is gone"), 500, "client_gone"),
        (ZeroDivisionError("of all things"), 500, "internal"),
        (KeyboardInterrupt(), 500, "internal"),
    ],
)
def test_every_error_has_an_answer_and_a_word(error: BaseException, status: int, reason: Reason) -> None:
    response, word = failure(error)
    assert (response.status_code, word) == (status, reason)
    assert bool(response.headers.get("retry-after")) == (status == 503)
    if isinstance(error, UpstreamAnswer):
        assert (response.content, response.headers["content-type"]) == (b"a teapot", "text/plain")
    else:
        assert orjson.loads(response.content or b"")["detail"]


def test_several_content_types_are_several_requests() -> None:
    request = request_of("text/plain", b"")
    assert content_type_of(request) == "text/plain"
    request.headers.add("content-type", "application/json")
    with pytest.raises(ProtocolError, match="2 Content-Type headers") as caught:
        content_type_of(request)
    assert caught.value.status == 400
    del request.headers["content-type"]
    assert content_type_of(request) == ""


@pytest.mark.parametrize("odd", ["encoded", "urlencoded", "repeated"])
def test_what_parsers_might_read_differently_is_built_anew(odd: str) -> None:
    """Stock must see what we saw: the last of two models, and no coding that we have not undone."""
    content_type, body = encode(entries_for("ocr"), image=b"\xff\xd8")
    if odd == "urlencoded":
        content_type, body = "application/x-www-form-urlencoded", b"entries=%7B%22ocr%22:%7B%7D%7D&text=hi"
    if odd == "repeated":
        body = body.replace(b'{"ocr"', b'{"clip": 1, "clip": 2, "ocr"')
    request = request_of(content_type, body)
    if odd == "encoded":
        request.headers["content-encoding"] = "identity"
    form = parse_form(content_type, body)
    entries = parse_entries(form.entries)
    make_exact(request, form, entries)
    sent = request.raw_content or b""
    assert sent != body
    assert request.headers["content-length"] == str(len(sent))
    assert "content-encoding" not in request.headers
    again = parse_form(request.headers["content-type"], sent)
    assert again.exact
    assert (parse_entries(again.entries), again.image, again.text) == (entries, form.image, form.text)
