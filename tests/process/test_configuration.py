"""Options: what mitmproxy must not be told is refused at the start and while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gateway_process import refused_start
from mitmproxy.exceptions import OptionsError
from mitmproxy.test import taddons

from immich_triton.ml.configuration import Configuration
from immich_triton.ml.route_file import Route, write_route
from immich_triton.ml.service import Service
from immich_triton.ml.settings import OPTIONS
from immich_triton.triton.pipelines import Pipeline

SECRETS = ("immich_path_token", "immich_api_key", "immich_triton_key")

CLIP = [
    Pipeline("clip_image", ["visual"], ["v"], {"encoder": "v"}),
    Pipeline("clip_text", ["textual"], ["t"], {"encoder": "t"}),
]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stream_large_bodies": "1m"}, "stream_large_bodies cannot be used"),
        ({"mode": "regular"}, "works in reverse mode only, not in mode 'regular'"),
        ({"mode": "reverse:tcp://127.0.0.1:9"}, "works in reverse mode only"),
        ({"immich_models": "/nowhere/at/all"}, "the model repository /nowhere/at/all does not exist"),
        ({"immich_deadline": 300}, "immich_deadline must lie between 1 and 299"),
        ({"immich_triton_url": "triton:8000"}, "must start with http"),
        *(({name: "correct-horse_battery"}, f"{name} must be file:PATH or env:NAME") for name in SECRETS),
    ],
)
def test_a_wrong_option_stops_the_start(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    code, printed = refused_start(tmp_path, **options)
    assert code == 1
    assert reason in printed
    assert "correct-horse" not in printed


def test_a_damaged_ledger_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "owned.json").write_text("{")
    code, printed = refused_start(tmp_path)
    assert code == 1
    assert "owned.json" in printed


def test_a_wrong_route_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    write_route(tmp_path / "v", Route("clip", ["ViT-L-14__openai"], CLIP, "a" * 64, dimension=512))
    code, printed = refused_start(tmp_path)
    assert code == 1
    assert "answers ViT-L-14__openai with 512 numbers, but Immich expects 768 numbers" in printed


def test_random_weights_are_not_routed_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    write_route(tmp_path / "v", Route("clip", ["ViT-B-16__openai"], CLIP, "a" * 64, dimension=512, untrained=True))
    service = Service()
    configuration = Configuration(service)
    with taddons.context(configuration) as context:
        context.configure(
            configuration,
            immich_models=str(tmp_path),
            immich_state_dir=str(tmp_path / "state"),
            immich_allow_untrained=True,
        )
        assert service.table.find("clip", "ViT-B-16__openai")
        with pytest.raises(OptionsError, match="random weights"):
            context.options.update(immich_allow_untrained=False)


def test_what_is_refused_while_running_is_taken_back(tmp_path: Path) -> None:
    service = Service()
    configuration = Configuration(service)
    with taddons.context() as context:
        context.options.add_option("connection_strategy", str, "eager", "", ("eager", "lazy"))
        context.options.add_option("stream_large_bodies", str | None, None, "")
        context.options.update(mode=["reverse:http://127.0.0.1:9"])
        context.master.addons.add(configuration)
        context.configure(configuration, immich_models=str(tmp_path), immich_state_dir=str(tmp_path / "state"))
        for change in ({"mode": ["regular"]}, {"stream_large_bodies": "1m"}, {"immich_models": "/nowhere/at/all"}):
            with pytest.raises(OptionsError):
                context.options.update(**change)
        assert context.options.mode == ["reverse:http://127.0.0.1:9"]
        assert context.options.stream_large_bodies is None
        assert service.settings.models == tmp_path
        context.options.update(connection_strategy="lazy")
        context.options.update(connection_strategy="eager")
        assert context.options.connection_strategy == "lazy"


def test_every_option_has_the_prefix_and_a_help_text() -> None:
    for option in OPTIONS:
        assert option.name.startswith("immich_")
        assert len(option.help) > 40
        assert "\n" not in option.help
