"""mitmproxy as both products need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mitmproxy import version
from mitmproxy.addonmanager import Loader
from mitmproxy.exceptions import OptionsError
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.test import taddons

from immich_triton.core.option_kinds import Integer
from immich_triton.core.options import Option
from immich_triton.proxy import http1
from immich_triton.proxy.reverse_proxy import check_mode, correct, prepare

DECLARED = [Option("immich_number", Integer(1, 9), 3, "A number.")]


@pytest.fixture
def context() -> Iterator[taddons.context]:
    with taddons.context() as context:
        yield context


def test_options_are_read_from_the_command_line_at_once(context: taddons.context) -> None:
    context.options.set("immich_number=7", defer=True)
    prepare(Loader(context.master), DECLARED)
    assert context.options.immich_number == 7
    assert context.options.default("immich_number") == 3
    assert _http1.ChunkedReader is http1.ChunkedBody  # type: ignore[attr-defined]


def test_a_value_that_is_no_number_ends_the_start_with_a_word(
    context: taddons.context, caplog: pytest.LogCaptureFixture
) -> None:
    context.options.set("immich_number=many", defer=True)
    with pytest.raises(OptionsError, match="many"):
        prepare(Loader(context.master), DECLARED)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "immich-triton: " in caplog.text


def test_a_mitmproxy_that_is_not_known_is_refused(context: taddons.context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "VERSION", "99.0.0")
    with pytest.raises(OptionsError, match="99"):
        prepare(Loader(context.master), DECLARED)


def test_what_would_not_work_is_set_back(context: taddons.context) -> None:
    context.options.add_option("connection_strategy", str, "eager", "When to connect.", ("eager", "lazy"))
    context.options.add_option("http2", bool, True, "HTTP/2.")
    context.options.add_option("onboarding", bool, True, "mitm.it.")
    correct({"connection_strategy"})
    assert (context.options.connection_strategy, context.options.http2) == ("lazy", True)
    assert context.options.onboarding
    correct({"http2", "onboarding"})
    assert not context.options.http2
    assert not context.options.onboarding


@pytest.mark.parametrize("spec", ["reverse:http://ml:3003", "reverse:https://ml", "reverse:http://ml@3004"])
def test_reverse_mode_is_taken(spec: str) -> None:
    check_mode(spec, "http://ml:3003")


@pytest.mark.parametrize("spec", ["regular", "transparent", "reverse:tcp://ml:3003", "upstream:http://ml:3003"])
def test_any_other_mode_is_refused_with_one_that_will_do(spec: str) -> None:
    with pytest.raises(OptionsError, match=r"reverse mode only.* --mode reverse:http://ml:3003$"):
        check_mode(spec, "http://ml:3003")
