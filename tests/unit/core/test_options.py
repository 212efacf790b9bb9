"""An option is declared once: mitmproxy, the checks and what is shown of the settings all read that declaration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.options import Options

from immich_triton.core.option_kinds import (
    Folder,
    HostPort,
    Integer,
    Kind,
    Mebibytes,
    Milliseconds,
    Number,
    Secret,
    Url,
)
from immich_triton.core.options import OptionSet, option
from immich_triton.ml.settings import Settings
from immich_triton.proxy.settings import ProxySettings
from immich_triton.web.settings import Settings as WebSettings

SETS: list[type[OptionSet]] = [ProxySettings, Settings, WebSettings]


def options_with(declared: type[OptionSet], **values: Any) -> Options:
    """Return mitmproxy's options, those of a set included, some of them changed."""
    options = Options()
    for one in declared.options():
        options.add_option(one.name, one.kind.type, one.default, one.help)
    options.update(**values)
    return options


@pytest.mark.parametrize("declared", SETS)
def test_each_field_is_one_option_and_its_default_is_what_mitmproxy_gives(declared: type[OptionSet]) -> None:
    names = [one.name for one in declared.options()]
    assert len(names) == len(set(names)) == len(fields(declared))
    assert declared.read(options_with(declared)) == declared()


def test_those_of_a_class_come_before_those_that_it_extends() -> None:
    own, extended = Settings.options(), ProxySettings.options()
    assert own[-len(extended) :] == extended
    assert own[0].name == "immich_triton_url"


def test_a_default_that_is_not_allowed_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="immich_x must lie between 1 and 2, not 3"):
        option("immich_x", Integer(1, 2), 3, "Help.")


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (Integer(0, 3), 3, 3),
        (Mebibytes(1, 3), 2, 2 << 20),
        (Milliseconds(10, 300), 250, 0.25),
        (Number(0, 1), "0.5", 0.5),
        (Folder(), "~/models", Path.home() / "models"),
        (Url(), "https://[::1]:8000/", "https://[::1]:8000"),
        (Url(optional=True), "", ""),
        (HostPort(), "[::1]:9464", ("::1", 9464)),
        (HostPort(), "", None),
    ],
)
def test_what_a_value_means(kind: Kind[Any], value: object, read: object) -> None:
    assert kind.read("immich_x", value) == read


@pytest.mark.parametrize(
    ("kind", "value", "complaint"),
    [
        (Integer(1, 299, why="Immich gives up at 300"), 300, r"between 1 and 299 \(Immich gives up at 300\), not 300"),
        (Mebibytes(1, 3), 0, "between 1 and 3, not 0"),
        (Milliseconds(10, 300), 301, "between 10 and 300, not 301"),
        (Number(0, 1, example="0.02"), "nan", "a number between 0 and 1, e.g. 0.02, not 'nan'"),
        (Url(), "", "must start with http:// or https:// and name a host"),
        (Url(optional=True), "ftp://host", "must start with http:// or https://"),
        (Url(), "http://host:port", "must start with http:// or https://"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_name(kind: Kind[Any], value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"^immich_x .*{complaint}"):
        kind.read("immich_x", value)


@pytest.mark.parametrize(
    ("declared", "values", "complaint"),
    [
        (ProxySettings, {"immich_max_body_mib": 300}, "immich_max_waiting_mib must be at least immich_max_body_mib"),
        (Settings, {"immich_max_body_mib": 300}, "immich_max_waiting_mib must be at least immich_max_body_mib"),
        (Settings, {"immich_api_url": "http://immich:2283"}, "belong together: set both, or none"),
        (Settings, {"immich_fallback_tasks": ["clip"]}, "immich_fallback_tasks must not name clip"),
        (Settings, {"immich_fallback_tasks": ["pets"]}, r"may name ocr and facial-recognition, not \['pets'\]"),
        (Settings, {"immich_shadow": "2"}, "immich_shadow must be a number between 0 and 1, e.g. 0.02, not '2'"),
        (Settings, {"immich_keep_flows": -1}, r"immich_keep_flows must be 0 \(keep all\) or the number of flows"),
        (Settings, {"immich_metrics_listen": "x"}, "immich_metrics_listen must be empty or look like"),
    ],
)
def test_what_does_not_go_is_refused(declared: type[OptionSet], values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        declared.read(options_with(declared, **values))


def test_a_secret_is_read_from_its_place_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("correct-horse_battery\n")
    settings = Settings.read(options_with(Settings, immich_path_token=f"file:{tmp_path / 'token'}"))
    assert settings.path_token == (tmp_path / "token").read_text().strip()
    assert "correct-horse" not in repr(settings)
    assert "triton_url='http://127.0.0.1:8000'" in repr(settings)


@dataclass(frozen=True)
class Extended(ProxySettings):
    """A product that knows no more than one secret of its own."""

    words: str = option("site_words", Secret(), "", "Help.")


def test_another_product_extends_what_is_the_proxys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_WORDS", "hush")
    settings = Extended.read(options_with(Extended, site_words="env:SITE_WORDS", immich_max_connections=7))
    assert (settings.words, settings.max_connections) == ("hush", 7)
    assert "hush" not in repr(settings)
