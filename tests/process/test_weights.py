"""A gateway before a Triton that does not have the route's weights: no CLIP answer of it is believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream
from scrape import Scrape
from stand_in_triton import FINGERPRINT, StandInTriton, stand_in_triton, write_routes

from harness.program import eventually
from immich_triton.immich.ml_client import Answer, entries_for, predict
from immich_triton.ml.ledger import Ledger


@pytest.fixture(scope="module")
def triton() -> Iterator[StandInTriton]:
    with stand_in_triton() as server:
        yield server


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(
    triton: StandInTriton, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    models = write_routes(directory / "models")
    with running_gateway(directory, models=models, triton_url=triton.url, upstream=upstream.url) as process:
        yield process


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("other weights", f"other weights (fingerprint {FINGERPRINT + 1})"),
        ("no proof", "no output FINGERPRINT"),
        ("older pipeline", "no output FINGERPRINT"),
    ],
)
@pytest.mark.parametrize("kind", ["image", "text"])
def test_what_is_not_proved_gets_503_at_once_and_is_not_sent_again(
    triton: StandInTriton, upstream: Recorder, gateway: GatewayProcess, behaviour: str, says: str, kind: str
) -> None:
    pipeline = "clip_image" if kind == "image" else "clip_text"
    triton.calls.clear()
    triton.behaviour[pipeline] = behaviour
    try:
        answer = ask(gateway, kind)
        assert (answer.status, triton.calls) == (503, [pipeline])
        assert says in str(answer.body)
        assert not Ledger(gateway.state_dir).owned(), "no name is owned before it was answered"
        assert predict(gateway.url, entries_for("ocr"), image=b"image").status == 200
        ping = requests.get(f"{gateway.url}/ping", timeout=60)
        assert (ping.status_code, says in ping.text) == (503, True)
        # The photo is to be caught up on.
        lost = {"reason": "weights", "input": kind, "outcome": "server_error"}
        assert Scrape(gateway.metrics_url).value("immich_gateway_requests_total", **lost) > 0
    finally:
        triton.behaviour.clear()
    # Found out without a request of Immich's.
    assert eventually(lambda: requests.get(f"{gateway.url}/ping", timeout=60).status_code == 200)
    assert upstream.predictions() == []


def test_a_copied_route_without_a_fingerprint_says_what_to_copy(
    triton: StandInTriton, upstream: Recorder, gateway: GatewayProcess
) -> None:
    route = gateway.log_file.parent / "models/clip/route.toml"
    whole = route.read_text()
    older = "".join(line for line in whole.splitlines(keepends=True) if not line.startswith("fingerprint"))
    assert older != whole
    replace_file(route, older)
    triton.calls.clear()
    for kind in ("image", "text"):
        assert eventually(lambda kind=kind: "does not say which weights" in str(ask(gateway, kind).body))  # type: ignore[misc]
        assert "copy clip/route.toml from there" in str(ask(gateway, kind).body)
    before = len(triton.calls)
    assert ask(gateway, "image").status == 503
    assert len(triton.calls) == before
    replace_file(route, whole)
    assert eventually(lambda: [ask(gateway, kind).status for kind in ("image", "text")] == [200, 200])
    assert upstream.predictions() == []


def ask(gateway: GatewayProcess, kind: str) -> Answer:
    if kind == "image":
        return predict(gateway.url, entries_for("clip"), image=b"image")
    return predict(gateway.url, entries_for("clip-text"), text="a cat")


def replace_file(path: Path, text: str) -> None:
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)
