"""What the live gateway takes a flow for."""

from __future__ import annotations

from typing import get_args

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow

from immich_triton.core import flow_state
from immich_triton.proxy.flow_kind import FlowKind, kind_of, may_go_upstream, release, set_kind

ALL: tuple[FlowKind, ...] = get_args(FlowKind)


@pytest.fixture
def flow() -> HTTPFlow:
    return tflow.tflow()


@pytest.mark.parametrize("kind", ALL)
def test_a_kind_is_the_word_of_the_gateway_that_gave_it(flow: HTTPFlow, kind: FlowKind) -> None:
    assert kind_of(flow, "ours") is None
    set_kind(flow, "ours", kind)
    assert kind_of(flow, "ours") == kind
    assert kind_of(flow, "another") is None


def test_a_word_that_no_gateway_of_today_says_is_no_kind(flow: HTTPFlow) -> None:
    set_kind(flow, "ours", "pass")
    flow_state.KIND.set(flow, "of a later version")
    assert kind_of(flow, "ours") is None
    assert not may_go_upstream(flow)


@pytest.mark.parametrize("kind", ALL)
def test_only_what_passes_or_was_released_goes_upstream(flow: HTTPFlow, kind: FlowKind) -> None:
    assert not may_go_upstream(flow)
    set_kind(flow, "ours", kind)
    assert may_go_upstream(flow) == (kind == "pass")
    release(flow)
    assert may_go_upstream(flow)


def test_a_release_does_not_count_when_the_flow_is_sent_again(flow: HTTPFlow) -> None:
    set_kind(flow, "ours", "predict")
    release(flow)
    set_kind(flow, "ours", "predict")
    assert not may_go_upstream(flow)
