"""The mark of an error, and whose flows are marked."""

from __future__ import annotations

from mitmproxy.test import tflow

from immich_triton.proxy.marks import ERROR_MARK, is_loaded, mark


def test_an_error_is_marked_and_the_mark_goes_when_it_is_none_any_more() -> None:
    flow = tflow.tflow()
    mark(flow, failed=True)
    assert flow.marked == ERROR_MARK
    mark(flow, failed=False)
    assert flow.marked == ""


def test_the_mark_of_a_person_stays() -> None:
    flow = tflow.tflow()
    flow.marked = ":star:"
    mark(flow, failed=False)
    assert flow.marked == ":star:"


def test_only_a_flow_with_a_comment_that_is_not_live_comes_from_a_file() -> None:
    flow = tflow.tflow()
    flow.comment = "from that day"
    flow.live = False
    assert is_loaded(flow)
    flow.live = True
    assert not is_loaded(flow)
    flow.comment, flow.live = "", False
    assert not is_loaded(flow)
