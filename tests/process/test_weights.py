"""A CLIP answer is believed only when it carries the fingerprint of the route's weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream
from scrape import Scrape
from stand_in_triton import FINGERPRINT, StandInTriton, stand_in_triton, write_routes

from harness.program import eventually
from immich_triton.immich.ml_client import Answer, entries_for, predict
from immich_triton.ml import fingerprints
from immich_triton.ml.fingerprints import Doubts
from immich_triton.ml.ledger import Ledger
from immich_triton.ml.route_file import Route
from immich_triton.triton import weights
from immich_triton.triton.inference import Call, WrongWeights
from immich_triton.triton.pipelines import Pipeline

SHA = "a1" * 32
VISUAL = Pipeline("clip_image", ("visual",), ("see",), {"encoder": "see"}, fingerprint=7)
TEXTUAL = Pipeline("clip_text", ("textual",), ("read",), {"encoder": "read"}, fingerprint=8)
ROUTE = Route("clip", ("ViT-B-16__openai",), (VISUAL, TEXTUAL), SHA, 512, False, Path("/models/see/route.toml"))
UNKNOWN = replace(VISUAL, fingerprint=None)


@pytest.mark.parametrize("answered", [[[8]], [[7, 7]], [[]], [["7"]], [[7.5]], [[float("nan")]]])
def test_only_the_very_fingerprint_is_believed(answered: list[list[object]]) -> None:
    fingerprints.compare(ROUTE, VISUAL, {"FINGERPRINT": np.array([[7]])})
    with pytest.raises(WrongWeights, match=r"answers with other weights .* copy see/route.toml from its repository"):
        fingerprints.compare(ROUTE, VISUAL, {"FINGERPRINT": np.array(answered)})


def test_a_route_without_a_fingerprint_answers_nothing() -> None:
    route = replace(ROUTE, pipelines=(UNKNOWN, TEXTUAL))
    with pytest.raises(WrongWeights, match=r"copy see/route.toml from there to /models/see/route.toml"):
        fingerprints.require(route, UNKNOWN)
    with pytest.raises(WrongWeights):
        fingerprints.compare(route, UNKNOWN, {"FINGERPRINT": np.array([[7]])})


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"fingerprint": 5, "weights": {"sha256": SHA}}, 5),
        ({"fingerprint": 5, "weights": {"sha256": "b2" * 32}}, None),
        ({"fingerprint": True, "weights": {"sha256": SHA}}, None),
        ({"fingerprint": -1, "weights": {"sha256": SHA}}, None),
        ({"fingerprint": 2**63, "weights": {"sha256": SHA}}, None),
        ({"fingerprint": "5", "weights": {"sha256": SHA}}, None),
        ({"fingerprint": 5}, None),
        ([], None),
    ],
)
def test_the_record_of_an_export_counts_for_its_own_weights(tmp_path: Path, record: object, found: int | None) -> None:
    (tmp_path / "see").mkdir()
    (tmp_path / "see/export.json").write_text(json.dumps(record))
    assert weights.recorded(tmp_path, "see", SHA) == found
    assert weights.recorded(tmp_path, "../see", SHA) is None
    assert weights.recorded(tmp_path, None, SHA) is None
    (tmp_path / "see/export.json").write_text("[" * 100_000)
    assert weights.recorded(tmp_path, "see", SHA) is None


async def test_a_doubt_stays_until_the_pipeline_answers_right_or_its_route_changes() -> None:
    doubts, asked = Doubts(), []
    answer: dict[str, Any] = {}

    async def ask(call: Call) -> dict[str, Any]:
        asked.append((call.pipeline.name, call.tensor, call.outputs))
        return answer

    doubts.add(VISUAL, WrongWeights("why"))
    assert doubts.about([ROUTE]) == {"clip_image": "why"}
    await doubts.ask_again([ROUTE], ask)  # no answer
    assert doubts.about([ROUTE]) == {"clip_image": "why"}
    answer["FINGERPRINT"] = np.array([[8]])
    await doubts.ask_again([ROUTE], ask)
    assert "other weights" in doubts.about([ROUTE])["clip_image"]
    answer["FINGERPRINT"] = np.array([[7]])
    await doubts.ask_again([ROUTE], ask)
    assert doubts.about([ROUTE]) == {}
    assert asked == [("clip_image", "IMAGE", ("FINGERPRINT",))] * 3
    doubts.add(TEXTUAL, WrongWeights("why"))
    await doubts.ask_again([replace(ROUTE, pipelines=(VISUAL, replace(TEXTUAL, fingerprint=9)))], ask)
    assert len(asked) == 3
    assert doubts.about([ROUTE]) == {}  # forgotten
    assert doubts.about([replace(ROUTE, pipelines=(UNKNOWN, TEXTUAL))]).keys() == {"clip_image"}


# A gateway before a Triton that does not have the route's weights


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
