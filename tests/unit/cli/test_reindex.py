"""``reindex.py``: what it shows, what it refuses, and that it starts Smart Search only when told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from immich_server import KEY, Immich, running_immich
from recorder import Recorder, recording_upstream

from harness.ports import free_ports
from immich_triton.cli import reindex
from immich_triton.ml.route_file import Route, write_route
from immich_triton.triton.pipelines import Pipeline


@pytest.fixture
def gateway() -> Iterator[Recorder]:
    """Something that answers ``/predict`` with 200, or whatever a test sets."""
    with recording_upstream() as server:
        yield server


@pytest.fixture
def immich(gateway: Recorder) -> Iterator[Immich]:
    with running_immich(urls=[gateway.url]) as server:
        yield server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "cn_clip_ViT-B-16_visual"
    folder.mkdir(parents=True)
    pipelines = [Pipeline("clip_image", ["visual"], [folder.name]), Pipeline("clip_text", ["textual"], ["t"])]
    write_route(folder, Route("clip", ["ViT-B-16__openai"], pipelines, "ab" * 32, 512))
    return folder.parent


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMICH_API_KEY", KEY)


def run(immich: Immich, gateway: str, models: Path, *arguments: str) -> int:
    base = ["--immich", immich.url, "--gateway", gateway, "--models", str(models)]
    return reindex.main([*base, "--interval", "0", *arguments])


def test_without_yes_it_shows_and_changes_nothing(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(immich, gateway.url, models) == 0
    text = capsys.readouterr().out
    assert "Immich 2.7.5, Smart Search on" in text
    assert "ViT-B-16__openai (512 numbers)" in text
    assert "cn_clip_ViT-B-16_visual, weights abababababab" in text
    assert "cannot be compared" in text
    assert "for all 42 photos and videos" in text
    assert "images/s, measured" in text
    assert "Nothing was changed" in text
    assert immich.started == []
    assert {line.split()[0] for line in immich.requests} == {"GET"}


def test_the_speed_is_measured_with_the_name_in_the_settings(immich: Immich, gateway: Recorder, models: Path) -> None:
    immich.clip_name = "ViT-B-32__openai"
    assert run(immich, gateway.url, models) == 0
    assert len(gateway.predictions()) > 1
    assert all(b"ViT-B-32__openai" in request.body for request in gateway.predictions())


def test_yes_embeds_everything_and_watches_until_the_queue_is_empty(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(immich, gateway.url, models, "--yes") == 0
    assert immich.started == [{"command": "start", "force": True}]
    assert immich.counts == [0]
    text = capsys.readouterr().out
    assert "42/42" in text
    assert "The queue is empty" in text
    assert "--missing --yes" in text


def test_a_look_at_the_queue_that_fails_does_not_end_the_watch(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.hiccups = 3
    assert run(immich, gateway.url, models, "--yes") == 0
    assert "The queue is empty after" in capsys.readouterr().out


def test_a_queue_that_cannot_be_looked_at_any_more_is_said(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.hiccups = 1000
    assert run(immich, gateway.url, models, "--yes") == 1
    assert "Immich answered 502: Bad Gateway" in capsys.readouterr().err


def test_missing_leaves_the_index_as_it_is(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.after_start = [1, 0]
    assert run(immich, gateway.url, models, "--missing", "--yes") == 0
    assert immich.started == [{"command": "start", "force": False}]
    assert "there was nothing to do, or it was done between two looks" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [(), ("--yes",)])
def test_another_address_in_the_settings_is_refused(
    arguments: tuple[str, ...], immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.urls = [gateway.url + "/", "http://immich-machine-learning:3003"]
    assert run(immich, gateway.url, models, *arguments) == 1
    error = capsys.readouterr().err
    assert "also list http://immich-machine-learning:3003" in error
    assert "503" in error
    assert immich.started == []


def test_a_gateway_that_does_not_answer_clip_is_refused(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answer = (503, b'{"detail":"ViT-B-16__openai was answered with other weights"}')
    assert run(immich, gateway.url, models, "--yes") == 1
    assert "the gateway answers 503 for ViT-B-16__openai, photos would be lost" in capsys.readouterr().err
    assert immich.started == []


def test_a_gateway_that_cannot_be_reached_is_refused(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    assert run(immich, gateway.url, models, "--yes", "--reach", f"http://127.0.0.1:{port}") == 1
    assert "see --reach" in capsys.readouterr().err
    assert immich.started == []


def test_the_gateway_may_have_another_address_from_here(immich: Immich, gateway: Recorder, models: Path) -> None:
    immich.urls = ["http://gateway:3004"]
    assert run(immich, "http://gateway:3004", models, "--reach", gateway.url, "--yes") == 0
    assert len(immich.started) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"enabled": False}, "Smart Search is off"),
        ({"urls": []}, "no machine-learning URL"),
        ({"paused": True}, "queue is paused"),
        ({"counts": [7]}, "Job is already running"),
        ({"permissions": {"systemConfig.read", "server.statistics", "job.read"}}, "permission job.create"),
        ({"permissions": {"job.read"}}, "permission systemConfig.read"),
    ],
)
def test_what_else_is_refused(
    change: dict[str, object],
    reason: str,
    immich: Immich,
    gateway: Recorder,
    models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in change.items():
        setattr(immich, name, value)
    assert run(immich, gateway.url, models, "--yes") == 1
    assert reason in capsys.readouterr().err
    assert immich.started == []


def test_a_wrong_key_is_said(
    immich: Immich,
    gateway: Recorder,
    models: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMMICH_API_KEY", "wrong")
    assert run(immich, gateway.url, models) == 1
    assert "does not accept the API key" in capsys.readouterr().err


def test_without_a_key_it_says_where_to_put_it(
    immich: Immich,
    gateway: Recorder,
    models: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("IMMICH_API_KEY")
    assert run(immich, gateway.url, models) == 2
    assert "IMMICH_API_KEY" in capsys.readouterr().err


def test_a_key_is_no_argument(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(immich, gateway.url, models, "--api-key", KEY) == 2
    complaint = capsys.readouterr().err
    assert "--api-key must be file:PATH or env:NAME, not the secret itself" in complaint
    assert KEY not in complaint
    assert immich.requests == []


def test_an_address_that_is_no_immich(gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answer = (200, b"<html>")
    assert requests.get(gateway.url, timeout=5).ok
    assert reindex.main(["--immich", gateway.url, "--gateway", gateway.url]) == 1
    assert "is that an Immich server?" in capsys.readouterr().err


def test_a_name_without_a_route_is_shown_as_the_stock_services(
    immich: Immich, gateway: Recorder, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.clip_name = "RN50__openai"
    assert run(immich, gateway.url, models) == 0
    assert "the stock service" in capsys.readouterr().out
