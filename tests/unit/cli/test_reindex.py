"""``reindex.py``: what it shows, what it refuses, and that it starts a queue only when told to."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from canned_gateway import BY_TRITON, FAILED_TO_FALL_BACK, FELL_BACK, CannedGateway, canned_gateway
from immich_server import KEY, PERMISSIONS, Immich, running_immich
from recorder import recording_upstream

from harness.ports import free_ports
from immich_triton.cli import reindex

ANSWERS = {"clip": "[1.0]", "ocr": {"text": []}, "facial-recognition": []}


@pytest.fixture
def gateway() -> Iterator[CannedGateway]:
    """A gateway that answers ``/predict`` with 200, or whatever a test sets, and counts what it was asked."""
    with canned_gateway() as server:
        server.task = "clip"
        server.answer = (200, json.dumps(ANSWERS).encode())
        yield server


@pytest.fixture
def immich(gateway: CannedGateway) -> Iterator[Immich]:
    with running_immich(urls=[gateway.url]) as server:
        server.on_start = lambda: gateway.counted.update(ok=42)
        yield server


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMICH_API_KEY", KEY)


def run(immich: Immich, gateway: CannedGateway, *arguments: str, metrics: str = "") -> int:
    base = ["--immich", immich.url, "--gateway", gateway.url, "--metrics", metrics or gateway.url]
    return reindex.main([*base, "--interval", "0", *arguments])


def test_without_yes_it_shows_and_changes_nothing(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(immich, gateway) == 0
    text = capsys.readouterr().out
    assert "Immich 2.7.5, Smart Search on" in text
    assert "ViT-B-16__openai (512 numbers)" in text
    assert "  answered by                  Triton\n" in text
    assert "cannot be compared" in text
    assert "for all 42 photos and videos" in text
    assert "images/s, measured" in text
    assert "Nothing was changed" in text
    assert immich.started == []
    assert {line.split()[0] for line in immich.requests} == {"GET"}


@pytest.mark.parametrize(
    ("said", "who"),
    [
        (BY_TRITON, "Triton\n"),
        (FAILED_TO_FALL_BACK, "Triton\n"),
        ("", "the stock service (no route of ours has this name)\n"),
        (FELL_BACK, "the stock service, because Triton is away"),
    ],
)
def test_who_answers_is_judged_by_the_answer(
    said: str, who: str, immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.timing = lambda _number: said
    run(immich, gateway)
    assert f"  answered by                  {who}" in capsys.readouterr().out


def test_while_triton_is_away_nothing_is_started(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.timing = lambda number: FELL_BACK if number == 5 else BY_TRITON
    assert run(immich, gateway, "--yes") == 1
    assert "Triton is away: photos would get the stock service's answers" in capsys.readouterr().err
    assert immich.started == []


def test_the_speed_is_measured_with_the_name_in_the_settings(immich: Immich, gateway: CannedGateway) -> None:
    immich.clip_name = "ViT-B-32__openai"
    assert run(immich, gateway) == 0
    assert len(gateway.bodies) > 1
    assert all(b"ViT-B-32__openai" in body for body in gateway.bodies)


def test_yes_embeds_everything_and_watches_until_the_queue_is_empty(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(immich, gateway, "--yes") == 0
    assert immich.started == [{"command": "start", "force": True}]
    assert immich.counts == [0]
    text = capsys.readouterr().out
    assert "42/42" in text
    assert "The queue is empty after" in text
    assert "Immich asked the gateway for 42 photos, and each was answered." in text


def test_the_progress_counts_photos_also_when_few_are_ever_seen_in_the_queue(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten photos once ended as ``4/4``: the most jobs that were there at one look."""
    immich.photos, immich.videos, immich.after_start = 10, 0, [1, 4, 2, 0]
    immich.on_start = lambda: gateway.counted.update(ok=10)
    assert run(immich, gateway, "--yes") == 0
    assert "10/10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "queue", "command"),
    [
        ("ocr", "ocr", {"command": "start", "force": True}),
        # With "force" the people would lose their names.
        ("faces", "faceDetection", {"command": "start"}),
    ],
)
def test_ocr_and_faces_too(
    task: str,
    queue: str,
    command: dict[str, object],
    immich: Immich,
    gateway: CannedGateway,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway.task = reindex.TASKS[task]
    assert run(immich, gateway, "--task", task, "--yes") == 0
    assert f"PUT /api/jobs/{queue}" in immich.requests
    assert immich.started == [command]
    text = capsys.readouterr().out
    assert f"model name in the settings   {immich.ocr_name if task == 'ocr' else immich.faces_name}\n" in text
    assert "42/42" in text
    assert ("photos that fail in a run of All are not found by Missing" in text) == (task == "ocr")
    assert ("Immich deletes the text of all photos first" in text) == (task == "ocr")
    assert ("keep their person" in text) == (task == "faces")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("--task", "clip"), "Run this again with --missing --yes"),
        (("--task", "ocr", "--missing"), "Run this again with --missing --yes"),
        (("--task", "ocr"), "They are not missing for Immich: photos that fail in a run of All are not found by Mis"),
        (("--task", "faces"), "They keep what they had; run this again with --yes"),
    ],
)
def test_photos_that_failed_are_told_with_what_finds_them(
    arguments: tuple[str, ...],
    advice: str,
    immich: Immich,
    gateway: CannedGateway,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway.task = reindex.TASKS[arguments[1]]
    immich.on_start = lambda: gateway.counted.update(ok=39, server_error=2, client_error=1)
    assert run(immich, gateway, "--yes", *arguments) == 1
    text = capsys.readouterr().out
    assert "Immich asked the gateway for 42 photos, of which 3 failed; the gateway's log says why." in text
    assert advice in text


def test_a_look_at_the_queue_that_fails_does_not_end_the_watch(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.hiccups = 3
    assert run(immich, gateway, "--yes") == 0
    assert "The queue is empty after" in capsys.readouterr().out


def test_a_queue_that_cannot_be_looked_at_any_more_is_said(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.hiccups = 1000
    assert run(immich, gateway, "--yes") == 1
    assert "Immich answered 502: Bad Gateway" in capsys.readouterr().err


def test_missing_leaves_what_there_is_and_says_when_nothing_was_missing(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.after_start, immich.on_start = [0], lambda: None
    assert run(immich, gateway, "--missing", "--yes") == 0
    assert immich.started == [{"command": "start", "force": False}]
    assert len([line for line in immich.requests if line == "GET /api/jobs"]) == 2, "before the start, and once after"
    text = capsys.readouterr().out
    assert "Nothing was missing: Immich asked the gateway for no photo." in text
    assert "a run of All" not in text


def test_nothing_missing_is_said_with_what_missing_does_not_find(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.after_start, immich.on_start, gateway.task = [0], lambda: None, "ocr"
    assert run(immich, gateway, "--missing", "--yes", "--task", "ocr") == 0
    assert "Nothing was missing" in (text := capsys.readouterr().out)
    assert "But photos that fail in a run of All are not found by Missing" in text


def test_what_was_done_between_two_looks_is_counted(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.after_start, immich.on_start = [0], lambda: gateway.counted.update(ok=1)
    assert run(immich, gateway, "--missing", "--yes") == 0
    assert "Immich asked the gateway for 1 photo, and each was answered." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ("nobody", "the gateway's metrics are not to be had at http://127.0.0.1:"),
        ("another", "are those of another gateway (see --metrics)"),
        ("restart", "the gateway was started again meanwhile, and counts from zero"),
        ("stock", "the gateway does not count by task what passes through"),
    ],
)
def test_what_is_not_known_is_said_to_be_unknown(
    about: str, why: str, immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = f"http://127.0.0.1:{free_ports(1)[0]}" if about == "nobody" else ""
    if about == "restart":
        immich.on_start = lambda: setattr(gateway, "began", 2.0)
    if about == "stock":
        gateway.timing = lambda _number: ""
    with canned_gateway() as another:
        another.task = "clip"
        assert run(immich, gateway, "--yes", metrics=another.url if about == "another" else metrics) == 0
    text = capsys.readouterr().out
    assert "How many photos were done is not known: " in text
    assert why in text
    assert "run this again with --missing --yes" in text
    assert "42/42" in text


@pytest.mark.parametrize("arguments", [(), ("--yes",)])
def test_another_address_in_the_settings_is_refused(
    arguments: tuple[str, ...], immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.urls = [gateway.url + "/", "http://immich-machine-learning:3003"]
    assert run(immich, gateway, *arguments) == 1
    error = capsys.readouterr().err
    assert "also list http://immich-machine-learning:3003" in error
    assert "503" in error
    assert immich.started == []


def test_a_gateway_that_does_not_answer_clip_is_refused(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answer = (503, b'{"detail":"ViT-B-16__openai was answered with other weights"}')
    assert run(immich, gateway, "--yes") == 1
    assert "the gateway answers 503 for ViT-B-16__openai, photos would be lost" in capsys.readouterr().err
    assert immich.started == []


def test_a_gateway_that_cannot_be_reached_is_refused(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    assert run(immich, gateway, "--yes", "--reach", f"http://127.0.0.1:{port}") == 1
    assert "see --reach" in capsys.readouterr().err
    assert immich.started == []


def test_the_gateway_may_have_another_address_from_here(immich: Immich, gateway: CannedGateway) -> None:
    immich.urls = ["http://gateway:3004"]
    line = ["--immich", immich.url, "--gateway", "http://gateway:3004", "--reach", gateway.url]
    assert reindex.main([*line, "--metrics", gateway.url, "--interval", "0", "--yes"]) == 0
    assert len(immich.started) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"enabled": False}, "Smart Search is off"),
        ({"clip_name": ""}, "Smart Search is off"),
        ({"urls": []}, "no machine-learning URL"),
        ({"paused": True}, "queue is paused"),
        ({"counts": [7]}, "Job is already running"),
        ({"permissions": PERMISSIONS - {"job.create"}}, "permission job.create"),
        ({"permissions": {"job.read"}}, "permission systemConfig.read"),
    ],
)
def test_what_else_is_refused(
    change: dict[str, object],
    reason: str,
    immich: Immich,
    gateway: CannedGateway,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in change.items():
        setattr(immich, name, value)
    assert run(immich, gateway, "--yes") == 1
    assert reason in capsys.readouterr().err
    assert immich.started == []


def test_a_wrong_key_is_said(
    immich: Immich,
    gateway: CannedGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMMICH_API_KEY", "wrong")
    assert run(immich, gateway) == 1
    assert "does not accept the API key" in capsys.readouterr().err


def test_without_a_key_it_says_where_to_put_it(
    immich: Immich,
    gateway: CannedGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("IMMICH_API_KEY")
    assert run(immich, gateway) == 2
    assert "IMMICH_API_KEY" in capsys.readouterr().err


def test_a_key_is_no_argument(immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(immich, gateway, "--api-key", KEY) == 2
    complaint = capsys.readouterr().err
    assert "--api-key must be file:PATH or env:NAME, not the secret itself" in complaint
    assert KEY not in complaint
    assert immich.requests == []


def test_an_address_that_is_no_immich(gateway: CannedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    with recording_upstream() as stranger:
        stranger.answer = (200, b"<html>")
        assert reindex.main(["--immich", stranger.url, "--gateway", gateway.url]) == 1
    assert "is that an Immich server?" in capsys.readouterr().err


SECRET = "s3cret"  # noqa: S105 - of nothing


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("nothing", ""),
        ("another token", "requests with another one get 404"),
        ("another address", "Immich's settings also list http://127.0.0.1:9/…, http"),
        ("no token taken", "the gateway answers 404"),
        ("nobody", "the gateway cannot be reached at http://127.0.0.1:9/…: "),
        ("no address", "list no machine-learning URL; add http://127.0.0.1:"),
    ],
)
def test_the_token_is_never_printed(
    change: str, reason: str, immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    with_token, arguments = f"{gateway.url}/{SECRET}/", ["--yes"]
    immich.urls = [with_token]
    match change:
        case "another token":
            immich.urls = [f"{gateway.url}/{SECRET}-of-old/"]
        case "another address":
            immich.urls = [f"http://127.0.0.1:9/{SECRET}", *immich.urls]
            immich.urls.append(f"http://127.0.0.1:9/{SECRET}2")
        case "no token taken":
            gateway.answer = (404, b'{"detail":"Not Found"}')
        case "nobody":
            arguments += ["--reach", f"http://127.0.0.1:9/{SECRET}"]
        case "no address":
            immich.urls = []
    line = ["--immich", immich.url, "--gateway", with_token, "--metrics", gateway.url, "--interval", "0"]
    assert reindex.main([*line, *arguments]) == bool(reason)
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    assert reason in printed.err


def test_another_address_is_no_harm_to_text(
    immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    immich.urls, gateway.task = [gateway.url, "http://stock:3003"], "ocr"
    assert run(immich, gateway, "--task", "ocr", "--yes") == 0
    assert "also list http://stock:3003: it asks there whenever the gateway answers 503" in capsys.readouterr().out
    immich.counts = [0]
    assert run(immich, gateway, "--task", "faces", "--yes") == 1
    assert "photos get faces of another model" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"pong"])
def test_a_gateway_that_answers_something_else_is_refused(
    answer: bytes, immich: Immich, gateway: CannedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answer = (200, answer)
    assert run(immich, gateway, "--yes") == 1
    assert "photos would be lost" in capsys.readouterr().err
    assert immich.started == []
