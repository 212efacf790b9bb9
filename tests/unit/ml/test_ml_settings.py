"""What the gateway may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mitmproxy.options import Options

from immich_triton.ml.settings import FALLBACK_TASKS, OPTIONS, Settings, default_state_dir
from immich_triton.proxy.settings import ProxySettings


def read(**given: Any) -> Settings:
    options = Options()
    for one in OPTIONS:
        options.add_option(one.name, one.kind.type, one.default, one.help)
    options.update(**given)
    return Settings.read(options)


def test_a_hardened_server_and_what_machine_learning_adds() -> None:
    names = [one.name for one in OPTIONS]
    assert {one.name for one in ProxySettings.options()} < set(names)
    assert len(names) == len(set(names))
    assert all(name.startswith("immich_") for name in names)


def test_by_default_a_photo_waits_long_a_person_does_not_and_nothing_goes_elsewhere() -> None:
    settings = read()
    assert 300 > settings.deadline > settings.query_deadline
    assert settings.drain_timeout > settings.deadline
    assert (settings.fallback_tasks, settings.shadow, settings.allow_untrained) == (frozenset(), 0.0, False)
    assert (settings.triton_key, settings.api_url, settings.api_key) == ("", "", "")


def test_what_must_outlive_a_clone_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_state_dir() == Path("/home/me/.local/state/immich-triton")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_state_dir() == Path("/state/immich-triton")


def test_tasks_whose_answers_do_not_mix_may_fall_back() -> None:
    assert read(immich_fallback_tasks=list(FALLBACK_TASKS)).fallback_tasks == {"ocr", "facial-recognition"}
    with pytest.raises(ValueError, match="immich_fallback_tasks must not name clip"):
        read(immich_fallback_tasks=["ocr", "clip"])
    with pytest.raises(ValueError, match=r"immich_fallback_tasks may name .*, not \['pets'\]"):
        read(immich_fallback_tasks=["pets"])


def test_immich_is_asked_with_address_and_key_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "a secret")
    settings = read(immich_api_url="http://immich:2283/", immich_api_key="env:KEY")
    assert (settings.api_url, settings.api_key) == ("http://immich:2283", "a secret")
    assert "a secret" not in repr(settings)
    for alone in ({"immich_api_url": "http://immich:2283"}, {"immich_api_key": "env:KEY"}):
        with pytest.raises(ValueError, match="immich_api_url and immich_api_key belong together"):
            read(**alone)


def test_the_rules_of_the_server_hold_too() -> None:
    with pytest.raises(ValueError, match="immich_max_waiting_mib must be at least"):
        read(immich_max_body_mib=300)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("immich_deadline", 300, r"between 1 and 299 \(Immich gives up at 300\)"),
        ("immich_query_deadline", 0, "between 1 and 299"),
        ("immich_max_pixels", 178_956_971, "between 1 and 178956970"),
        ("immich_max_parts", 1, "between 2 and 1000"),
        ("immich_shadow", "1.1", r"between 0 and 1, e\.g\. 0\.02"),
        ("immich_shadow", "nan", "between 0 and 1"),
        ("immich_triton_url", "triton:8000", "must start with http"),
        ("immich_triton_key", "the key", "must be file:PATH or env:NAME"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(option: str, value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} .*{reason}"):
        read(**{option: value})
