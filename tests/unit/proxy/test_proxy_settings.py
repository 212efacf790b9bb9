"""What mitmproxy as a hardened server may be told."""

from __future__ import annotations

import math
from typing import Any

import pytest
from mitmproxy.options import Options

from immich_triton.core.option_kinds import MEBIBYTE
from immich_triton.proxy.settings import ProxySettings

TOKEN = "a" * 15 + "-"


def read(**given: Any) -> ProxySettings:
    options = Options()
    for one in ProxySettings.options():
        options.add_option(one.name, one.kind.type, one.default, one.help)
    options.update(**given)
    return ProxySettings.read(options)


def test_by_default_images_fit_and_strangers_read_no_metrics() -> None:
    settings = read()
    assert settings.max_body == 50 * MEBIBYTE
    assert settings.max_waiting >= settings.max_body
    assert settings.metrics_listen == ("127.0.0.1", 9464)
    assert settings.path_token == ""
    assert math.isfinite(settings.upstream_timeout)


def test_one_body_must_have_room() -> None:
    assert read(immich_max_body_mib=256).max_body == 256 * MEBIBYTE
    with pytest.raises(ValueError, match="immich_max_waiting_mib must be at least immich_max_body_mib"):
        read(immich_max_body_mib=257)


@pytest.mark.parametrize("token", ["a" * 15, "a" * 16 + "/", "a" * 16 + ".", "ä" * 16, "a" * 16 + "%"])
def test_a_token_can_stand_in_a_path_and_is_long(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", token)
    with pytest.raises(ValueError, match="immich_path_token must have at least 16 letters") as caught:
        read(immich_path_token="env:TOKEN")  # noqa: S106 - it says where the token stands
    assert token not in str(caught.value)


def test_a_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    settings = read(immich_path_token="env:TOKEN")  # noqa: S106
    assert settings.path_token == TOKEN
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("immich_keep_flows", -1),
        ("immich_max_connections", 0),
        ("immich_header_timeout", 0),
        ("immich_drain_timeout", 3601),
        ("immich_metrics_listen", "9464"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{option} must "):
        read(**{option: value})


def test_zero_keeps_all_flows_and_does_not_wait_for_anybody() -> None:
    assert read(immich_keep_flows=0, immich_drain_timeout=0, immich_metrics_listen="") == read().__class__(
        keep_flows=0, drain_timeout=0, metrics_listen=None
    )
