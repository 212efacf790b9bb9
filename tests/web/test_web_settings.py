"""The options of the site: what they may be, what a wrong one says, and that the documentation has them all."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import document_options
import pytest
from gateway_process import command, kept
from mitmproxy.addons.dumper import Dumper
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons
from site_process import ADDON

from harness.ports import free_ports
from immich_triton.core.option_kinds import Integer, Milliseconds
from immich_triton.proxy.settings import KeptFlows
from immich_triton.server import die_with_parent
from immich_triton.web.configuration import Configuration
from immich_triton.web.service import Service
from immich_triton.web.settings import OPTIONS


def configured(service: Service | None = None) -> taddons.context:
    """Give mitmproxy's options with the addons that declare those we set."""
    return taddons.context(Proxyserver(), Dumper(), Configuration(service or Service()))


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("web_hybrid", "maybe", "web_hybrid must be on or off, not 'maybe'"),
        ("web_clip_weight", "much", "web_clip_weight must be a number between 0 and 100, not 'much'"),
        ("web_clip_weight", "nan", "web_clip_weight must be a number"),
        ("web_ocr_weight", "-1", "web_ocr_weight must be a number"),
        ("web_depth", 1001, "web_depth must lie between 1 and 1000, not 1001"),
        ("web_ocr_timeout", 0, "web_ocr_timeout must lie between 10 and 60000, not 0"),
        ("web_database_url", "postgresql://immich_triton:geheim@database/immich", "must be file:PATH or env:NAME"),
        ("web_database_url", "env:NO_SUCH_VARIABLE", "web_database_url: env:NO_SUCH_VARIABLE is empty"),
        ("web_database_url", "env:PATH", "must point to an address that begins with postgresql:// or postgres://"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name: str, value: object, complaint: str) -> None:
    with configured() as context, pytest.raises(Exception, match=complaint):
        context.options.update(**{name: value})


def test_both_weights_must_not_be_nothing() -> None:
    with (
        configured() as context,
        pytest.raises(Exception, match="must not both be 0"),
    ):
        context.options.update(web_clip_weight="0", web_ocr_weight="0")


def test_values_in_other_units_and_words() -> None:
    service = Service()
    with configured(service) as context:
        context.options.update(web_hybrid="Off", web_ocr_prefix="true", web_ocr_timeout=250, web_ocr_weight="0.5")
        settings = service.settings
    assert (settings.hybrid, settings.ocr_prefix, settings.ocr_timeout, settings.ocr_weight) == (False, True, 0.25, 0.5)


def test_the_address_of_the_database_is_read_from_its_place_and_not_shown(tmp_path: Path) -> None:
    service = Service()
    with configured(service) as context:
        assert not bool(service.database)
        place = kept(tmp_path, "postgresql://immich_triton:geheim@database/immich")
        context.options.update(web_database_url=place)
        assert bool(service.database)
        assert service.settings.database_url.endswith("geheim@database/immich")
        assert "geheim" not in repr(service.settings) + repr(context.options.web_database_url)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("http://immich-redis:6379", "must be file:PATH or env:NAME"),
        ("redis://", "must give an address like redis://redis:6379/0"),
        ("redis://immich-redis:port", "must give an address like"),
        ("unix://", "must give an address like"),
        ("redis://:hunter2@immich-redis:6379/0", "must not hold a password"),
        ("unix:///run/redis.sock?password=hunter2", "must not hold a password"),
    ],
)
def test_an_address_of_redis_that_is_none_or_shows_a_password_is_refused(value: str, complaint: str) -> None:
    with configured() as context, pytest.raises(Exception, match=complaint) as refused:
        context.options.update(web_redis_url=value)
    assert "hunter2" not in str(refused.value)


def test_an_address_of_redis_may_stand_elsewhere_with_its_password(tmp_path: Path) -> None:
    service = Service()
    with configured(service) as context:
        for plain in ("redis://redis:6379/0", "rediss://[::1]", "unix:///run/redis.sock", ""):
            context.options.update(web_redis_url=plain)
            assert service.settings.redis_url == plain
        context.options.update(web_redis_url=kept(tmp_path, "redis://:hunter2@immich-redis:6379/0"))
        assert service.settings.redis_url == "redis://:hunter2@immich-redis:6379/0"
        assert "hunter2" not in repr(service.settings)


def test_mitmproxy_is_set_for_a_site() -> None:
    with configured() as context:
        options = context.options
        options.update(
            web_depth=200, connection_strategy="eager", flow_detail=1, http2=True
        )  # as at the start: all are looked at
        assert (options.keep_host_header, options.connection_strategy, options.flow_detail) == (True, "lazy", 0)
        assert not options.http2
        options.update(flow_detail=2, web_keep_host="off")
        assert (options.keep_host_header, options.flow_detail) == (False, 2)


@pytest.mark.parametrize("mode", ["regular", "socks5", "reverse:dns://1.1.1.1"])
def test_any_mode_but_reverse_is_refused(mode: str) -> None:
    with (
        configured() as context,
        pytest.raises(Exception, match="reverse mode only"),
    ):
        context.options.update(mode=[mode])


def test_numbers_and_defaults_fit() -> None:
    numbers = [(option.kind, option.default) for option in OPTIONS if option.kind.type is int]
    assert len(numbers) == 6
    for kind, default in numbers:
        assert isinstance(kind, Integer | Milliseconds | KeptFlows)
        assert kind.read("web_x", default) is not None
    assert all(option.name.startswith("web_") and option.help.endswith(".") for option in OPTIONS)


def test_an_option_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    line = command(port=port, mode="reverse:http://127.0.0.1:9", script=ADDON, confdir=tmp_path, web_depth="deep")
    ended = subprocess.run(die_with_parent.wrap(line), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "immich-triton: Failed to parse option web_depth: not an integer: deep" in ended.stdout + ended.stderr


def test_the_documentation_has_every_option_and_every_way_to_switch_off() -> None:
    text = document_options.WEB.read_text(encoding="utf-8")
    assert document_options.updated_web(text) == text, "run: python scripts/lab/document_options.py"
    switches = [f"web_{name}=off" for name in ("ocr_prefix", "hybrid", "keep_host", "forwarded", "menu")]
    for switch in (*switches, "web_redis_url="):
        assert f"`{switch}`" in text


def test_the_site_loads_the_libraries_of_redis_only_when_it_has_one() -> None:
    program = "import sys, immich_web; print([*sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ADDON.parent, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(ast.literal_eval(ended.stdout))
    assert "immich_triton.web.reprocess" in loaded
    assert not [name for name in loaded if name.startswith(("redis", "bullmq"))]


def test_the_gateway_of_the_machine_learning_loads_nothing_of_this() -> None:
    program = "import sys, immich_ml; print([*sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ADDON.parent, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(ast.literal_eval(ended.stdout))
    assert "immich_triton.ml.gateway" in loaded
    others = ("rjieba", "opencc", "asyncpg", "redis", "bullmq")
    assert not [name for name in loaded if name.startswith(("immich_triton.web.", *others))]
