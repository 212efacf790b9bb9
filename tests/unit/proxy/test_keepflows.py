"""mitmweb keeps so many flows and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mitmproxy.addons.view import View
from mitmproxy.exceptions import OptionsError
from mitmproxy.http import HTTPFlow
from mitmproxy.test import taddons, tflow

from immich_triton.proxy.keepflows import KeepFlows
from immich_triton.proxy.settings import ProxySettings


@pytest.fixture
def context() -> Iterator[taddons.context]:
    with taddons.context() as context:
        for one in ProxySettings.options():
            context.options.add_option(one.name, one.kind.type, one.default, one.help)
        context.master.addons.add(KeepFlows())
        yield context


def begin(context: taddons.context, *, live: bool = False) -> HTTPFlow:
    """Let a flow begin, as mitmproxy does: our hook, then its list. Unless it is to run on, it is over."""
    flow = tflow.tflow()
    flow.live = True
    hook: KeepFlows = context.master.addons.get("keepflows")
    hook.requestheaders(flow)
    view: View | None = context.master.addons.get("view")
    if view is not None:
        view.add([flow])
    flow.live = live
    return flow


def test_the_oldest_make_room(context: taddons.context) -> None:
    view = View()
    context.master.addons.add(view)
    context.options.update(immich_keep_flows=2)
    flows = [begin(context) for _ in range(4)]
    assert list(view.resolve("@all")) == flows[2:]


def test_those_that_still_run_stay(context: taddons.context) -> None:
    view = View()
    context.master.addons.add(view)
    context.options.update(immich_keep_flows=1)
    running = begin(context, live=True)
    begin(context)
    last = begin(context)
    assert list(view.resolve("@all")) == [running, last]
    assert running.killable


def test_none_is_removed_where_all_are_kept(context: taddons.context) -> None:
    view = View()
    context.master.addons.add(view)
    context.options.update(immich_keep_flows=0)
    flows = [begin(context) for _ in range(3)]
    assert list(view.resolve("@all")) == flows


def test_one_that_is_loaded_from_a_file_pushes_nothing_out(context: taddons.context) -> None:
    view = View()
    context.master.addons.add(view)
    context.options.update(immich_keep_flows=1)
    kept = begin(context)
    loaded = tflow.tflow()
    loaded.live = False
    context.master.addons.get("keepflows").requestheaders(loaded)
    assert list(view.resolve("@all")) == [kept]


def test_mitmdump_keeps_none_anyway(context: taddons.context) -> None:
    context.options.update(immich_keep_flows=1)
    assert context.master.addons.get("view") is None
    begin(context)


def test_a_number_that_is_none_is_refused(context: taddons.context) -> None:
    with pytest.raises(OptionsError, match="immich_keep_flows must be 0"):
        context.options.update(immich_keep_flows=-1)


def test_another_product_has_an_option_of_its_own() -> None:
    with taddons.context() as context:
        context.options.add_option("web_keep_flows", int, 500, "")
        context.master.addons.add(KeepFlows("web_keep_flows", lambda options: int(options.web_keep_flows)))
        context.master.addons.add(view := View())
        context.options.update(web_keep_flows=2)
        for _ in range(4):
            begin(context)
        assert len(view.resolve("@all")) == 2
