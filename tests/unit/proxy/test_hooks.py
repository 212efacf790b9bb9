"""Events reach the hooks that mitmproxy's own loop would reach, in its order, and errors end what they ended there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import addonmanager, http
from mitmproxy.exceptions import AddonHalt, OptionsError
from mitmproxy.hooks import ConfigureHook
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.test import taddons, tflow

from immich_triton.proxy import hooks

FLOW = tflow.tflow()


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[addonmanager.AddonManager]:
    """The manager of a mitmproxy with ours in place, and nobody in its chain."""
    for name in ("trigger", "trigger_event"):
        monkeypatch.setattr(addonmanager.AddonManager, name, getattr(addonmanager.AddonManager, name))
    with taddons.context() as context:
        hooks.install()
        context.master.addons.clear()
        yield context.master.addons


def addon(name: str, heard: list[str], within: list[Any] | None = None, *, fails: BaseException | None = None) -> Any:
    def request(flow: http.HTTPFlow) -> None:
        assert flow is FLOW
        heard.append(name)
        if fails:
            raise fails

    more = {} if within is None else {"addons": within}
    return SimpleNamespace(name=name, request=request, **more)


def tell(manager: addonmanager.AddonManager) -> None:
    asyncio.run(manager.trigger_event(HttpRequestHook(FLOW)))


def test_all_hooks_are_told_in_the_order_of_the_chain(manager: addonmanager.AddonManager, heard: list[str]) -> None:
    async def request(flow: http.HTTPFlow) -> None:
        await asyncio.sleep(0)
        heard.append("asynchronous")

    manager.add(addon("first", heard, [addon("within", heard)]))
    manager.add(SimpleNamespace(name="deaf"), SimpleNamespace(name="asynchronous", request=request))
    manager.add(addon("last", heard))
    tell(manager)
    assert heard == ["first", "within", "asynchronous", "last"]


def test_an_error_ends_the_turn_of_one_addon_with_those_in_it(
    manager: addonmanager.AddonManager, heard: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    broken = addon("broken", heard, fails=ValueError("it broke"))
    manager.add(addon("script", heard, [broken, addon("its next", heard)]), addon("last", heard))
    tell(manager)
    assert heard == ["script", "broken", "last"]
    assert "Addon error: it broke" in caplog.text


@pytest.mark.parametrize(("error", "raised"), [(AddonHalt(), False), (OptionsError("no"), True)])
def test_an_addon_can_end_it_for_all(
    manager: addonmanager.AddonManager, heard: list[str], error: Exception, raised: bool
) -> None:
    manager.add(addon("halts", heard, fails=error), addon("last", heard))
    if raised:
        with pytest.raises(type(error)):
            tell(manager)
    else:
        tell(manager)
    assert heard == ["halts"]


def test_what_is_no_function_is_said_and_stops_nobody_else(
    manager: addonmanager.AddonManager, heard: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    manager.add(SimpleNamespace(name="odd", request=5), addon("last", heard))
    tell(manager)
    assert heard == ["last"]
    assert "Addon handler request" in caplog.text


def _add(manager: addonmanager.AddonManager, script: Any, new: Any) -> None:
    manager.add(new)


def _add_within(manager: addonmanager.AddonManager, script: Any, new: Any) -> None:
    manager.register(new)
    script.addons.append(new)


def _exchange(manager: addonmanager.AddonManager, script: Any, new: Any) -> None:
    manager.remove(manager.get("goes"))
    manager.add(new)


@pytest.mark.parametrize(
    ("change", "then"),
    [
        (_add, ["script", "goes", "new"]),
        (_add_within, ["script", "new", "goes"]),
        (_exchange, ["script", "new"]),
    ],
)
def test_addons_may_come_and_go(
    manager: addonmanager.AddonManager, heard: list[str], change: Callable[..., None], then: list[str]
) -> None:
    script = addon("script", heard, [])
    manager.add(script, addon("goes", heard))
    tell(manager)
    heard.clear()
    change(manager, script, addon("new", heard))
    tell(manager)
    assert heard == then


def test_a_script_that_is_loaded_while_options_are_set_hears_of_them(
    manager: addonmanager.AddonManager, heard: list[str]
) -> None:
    late = SimpleNamespace(name="late", configure=lambda _updated: heard.append("late"))

    def configure(_updated: set[str]) -> None:
        if manager.get("late") is None:
            manager.add(late)

    manager.add(SimpleNamespace(name="loader", configure=configure))
    manager.trigger(ConfigureHook({"mode"}))
    assert heard == ["late"]


def test_messages_are_made_without_a_look_at_the_types_of_their_fields() -> None:
    """What it looks for mitmproxy itself leaves out where Python runs with -O."""
    source = inspect.getsource(http.MessageData)
    assert "if __debug__:\n\n        def __post_init__" in source
    hooks.install()
    assert http.Response.make(200, b"ok").data.__post_init__() is None
