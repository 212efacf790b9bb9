"""Where a connection stands: a WebSocket has no end, who is told why not has one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast, override

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.test import taddons, tflow

from immich_triton.core.observer import Observer
from immich_triton.ml.service import Service
from immich_triton.ml.settings import Settings
from immich_triton.proxy import progress
from immich_triton.proxy.flow_kind import release, set_kind
from immich_triton.proxy.limits import Limits
from immich_triton.proxy.progress import AHEAD, Flood, Progress, Stage
from immich_triton.proxy.wire import Reader, Tap

LATER = 100.0
"""Seconds; all of the time-outs are over by then."""

SETTINGS = cast("Settings", SimpleNamespace(header_timeout=1, body_timeout=1, upstream_timeout=1))


class Told(Observer):
    """Counts what was answered before its time."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    @override
    def refused(self, reason: str, status: int, *, photo: bool = False) -> None:
        self.statuses.append(status)

    @override
    def upstream_failed(self, status: int) -> None:
        self.statuses.append(status)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def limits(told: Told) -> Iterator[Limits]:
    service = Service()
    service.observers.subscribe(told)
    with taddons.context(Proxyserver()):
        yield Limits(service)


@pytest.fixture
def flow() -> HTTPFlow:
    return tflow.tflow()


@pytest.fixture
def one(flow: HTTPFlow) -> Iterator[Progress]:
    yield progress.of(flow.client_conn)
    progress.forget(flow.client_conn)


def look(limits: Limits, one: Progress) -> None:
    limits._look_at(one, SETTINGS, time.monotonic() + LATER)


def test_who_is_too_slow_is_told_so_once_and_is_on_the_way_out(limits: Limits, told: Told, one: Progress) -> None:
    one.received(10)
    assert progress.busy()
    for _ in range(2):
        look(limits, one)
    assert told.statuses == [408]
    assert one.stage is Stage.CLOSING
    assert not progress.busy()
    assert not progress.refusing()
    one.received(2 * AHEAD)  # what is still on the way does no harm
    assert one.stage is Stage.CLOSING


def test_what_is_cut_off_is_not_taken_for_a_connection_that_waits_for_its_next_request(
    limits: Limits, told: Told, one: Progress, flow: HTTPFlow
) -> None:
    set_kind(flow, "a gateway", "predict")
    release(flow)
    one.begin(flow)
    one.enter(Stage.ANSWER)
    look(limits, one)
    assert told.statuses == [504]
    limits.response(flow)
    assert (one.stage, one.flow) == (Stage.CLOSING, flow)
    limits.error(flow)
    assert (one.stage, one.flow) == (Stage.IDLE, None)


def test_a_websocket_stays_open_for_as_long_as_it_likes(
    limits: Limits, told: Told, one: Progress, flow: HTTPFlow
) -> None:
    one.begin(flow)
    one.enter(Stage.ANSWER)
    flow.response = Response.make(101)
    limits.responseheaders(flow)
    assert one.stage is Stage.TUNNEL
    limits.response(flow)
    look(limits, one)
    one.received(2 * AHEAD)
    assert (one.stage, told.statuses) == (Stage.TUNNEL, [])
    assert not progress.busy()


def test_a_request_that_was_answered_leaves_the_connection_to_the_next(
    limits: Limits, one: Progress, flow: HTTPFlow
) -> None:
    one.begin(flow)
    one.enter(Stage.ANSWER)
    limits.response(flow)
    assert (one.stage, one.flow) == (Stage.IDLE, None)
    with pytest.raises(Flood):
        one.received(AHEAD + 1)


def test_a_body_is_taken_in_larger_pieces_than_what_may_be_a_flood_of_headers(one: Progress) -> None:
    tap = one.tap = Tap(cast("Reader", None), lambda _count: None)
    pieces = {}
    for stage in Stage:
        one.enter(stage)
        pieces[stage] = tap.at_once
    one.enter(Stage.IDLE)
    one.received(pieces[Stage.BODY])  # asked for as a body, and it is the next request
    assert pieces.pop(Stage.BODY) > 65535
    assert set(pieces.values()) == {0}
