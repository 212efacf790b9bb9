"""``immich-triton run --mt-photos``: the process that it runs, and its ports."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

from immich_triton.cli import run_mt_photos
from immich_triton.cli.run_mt_photos import MtPhotosSettings
from immich_triton.server.gateway_process import GatewaySettings

GATEWAY = GatewaySettings(
    upstream="http://127.0.0.1:3003",
    host="127.0.0.1",
    port=3004,
    metrics_port=9464,
    triton_url="http://127.0.0.1:8000",
    models=Path("/models"),
    run_dir=Path("/run"),
    supervisor=Path("/run/models.sock"),
)


def asked(*arguments: str, host: str = "127.0.0.1") -> MtPhotosSettings | None:
    parser = argparse.ArgumentParser()
    run_mt_photos.add_options(parser)
    options = parser.parse_args(arguments)
    return run_mt_photos.settings(options, replace(GATEWAY, host=host), shlex.split(options.mt_photos_options))


def command(*arguments: str) -> list[str]:
    made = asked("--mt-photos", *arguments)
    assert made is not None
    return made.command


def test_it_runs_only_when_it_is_asked_for() -> None:
    assert asked() is None


def test_it_runs_the_addon_beside_the_gateway_over_the_same_triton_and_models() -> None:
    line = command()
    assert f"--scripts={run_mt_photos.ADDON}" in line
    assert run_mt_photos.ADDON.is_file()
    assert {"--listen-port=8060", "--set=immich_triton_url=http://127.0.0.1:8000"} <= set(line)
    assert {"--set=immich_models=/models", "--set=immich_metrics_listen=127.0.0.1:9466"} <= set(line)
    assert "--set=immich_supervisor=/run/models.sock" in line, "a route that sleeps wakes for both"
    assert not [part for part in line if "mt_photos_" in part and part.startswith("--set")]


def test_the_encoder_and_the_place_of_the_key_are_handed_on() -> None:
    line = command("--mt-photos-clip", "small_visual", "--mt-photos-key", "env:KEY")
    assert {"--set=mt_photos_clip=small_visual", "--set=mt_photos_key=env:KEY"} <= set(line)


def test_what_the_options_say_counts() -> None:
    line = command("--mt-photos-clip", "small_visual", "--mt-photos-options=--set mt_photos_clip=other")
    assert "--set=mt_photos_clip=small_visual" not in line
    assert line[-2:] == ["--set", "mt_photos_clip=other"]


def test_its_metrics_listen_where_the_others_do() -> None:
    options = argparse.Namespace(mt_photos=True, mt_photos_port=8060, mt_photos_metrics_port=9466)
    options.mt_photos_clip = options.mt_photos_key = ""
    made = run_mt_photos.settings(options, replace(GATEWAY, metrics_host="0.0.0.0"))
    assert made is not None
    assert made.metrics == "0.0.0.0:9466"


def test_a_port_that_is_taken_is_told_with_the_option_to_choose_another() -> None:
    made = asked("--mt-photos", "--mt-photos-port", "18060")
    assert made is not None
    assert [(port.number, port.remedy.rpartition("run ")[2]) for port in made.ports] == [
        (18060, "--mt-photos-port N"),
        (9466, "--mt-photos-metrics-port N"),
    ]
    without = asked("--mt-photos", "--mt-photos-metrics-port", "")
    assert without is not None
    assert len(without.ports) == 1


def test_the_summary_says_where_it_is() -> None:
    made = asked("--mt-photos", host="::1")
    assert made is not None
    line = run_mt_photos.summary(made)
    assert line == "  MT-Photos asks   http://[::1]:8060, metrics http://127.0.0.1:9466/metrics"


def test_what_a_killed_run_left_behind_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "mt_photos/gateway.pid"
    left.parent.mkdir()
    left.write_text("4194305")
    run_mt_photos.forget(tmp_path)
    assert not left.exists()
    run_mt_photos.forget(tmp_path)
