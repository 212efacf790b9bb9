"""Routes that fall asleep because nobody asks, and wake for a request: ``immich-triton run`` with the real Triton."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import tiny_encoders
from PIL import Image
from recorder import Recorder, recording_upstream
from scrape import Scrape

from harness.ports import free_ports
from harness.program import Program, eventually
from immich_triton.cli import doctor, run
from immich_triton.core.model_states import NAME, ask
from immich_triton.immich.ml_client import Answer, entries_for, predict
from immich_triton.ml.ledger import Ledger
from immich_triton.server import processes

pytestmark = pytest.mark.xdist_group("supervisor")

SECONDS = 2.0
"""Without a request, until a route sleeps: more than a busy machine needs for a tiny model."""
MODELS = {"clip_image", "clip_text", "see_a", "read_a"}


class Site:
    """A running ``immich-triton run`` whose only route is that of two tiny CLIP encoders."""

    def __init__(self, directory: Path, upstream: Recorder) -> None:
        self.upstream = upstream
        self.models = directory / "models"
        self.run_dir = directory / "run"
        self.state_dir = directory / "state"
        self.encoders = tiny_encoders.repository(self.models, "a")
        # One of each is enough here.
        for name in ("clip_image", "clip_text"):
            config = self.models / name / "config.pbtxt"
            config.write_text(re.sub(r"count: \d+", "count: 1", config.read_text()))
        port, metrics_port, http_port, triton_metrics_port = free_ports(4)
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}"
        self.triton_url = f"http://127.0.0.1:{http_port}"
        line: list[object] = ["--models", self.models, "--run-dir", self.run_dir, "--no-export"]
        line += ["--port", port, "--metrics-port", metrics_port, "--upstream", upstream.url]
        line += ["--triton-http-port", http_port, "--triton-metrics-port", triton_metrics_port]
        line += ["--idle-unload", SECONDS / 60]
        line += [f"--options=--set immich_state_dir={self.state_dir} --set immich_query_deadline=120"]
        self.program = Program.start("run", line, directory / "console.log")

    @property
    def console(self) -> str:
        return self.program.console

    def count(self, text: str) -> int:
        return self.console.count(text)

    def loads(self, model: str) -> int:
        return len(re.findall(rf"^triton: {model} loaded", self.console, re.MULTILINE))

    def states(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            return dict(ask(self.run_dir / NAME).models)
        return {}

    def asleep(self) -> bool:
        """Tell whether all models sleep, and Triton has none of them any more."""
        return set(self.states().values()) == {"asleep"} and not any(self.has(model) for model in MODELS)

    def has(self, model: str) -> bool:
        return requests.get(f"{self.triton_url}/v2/models/{model}/ready", timeout=30).ok

    def ping(self) -> tuple[int, str]:
        answer = requests.get(f"{self.url}/ping", timeout=30)
        return answer.status_code, answer.text

    def ask(self, text: str = "猫") -> Answer:
        return predict(self.url, entries_for("clip-text", tiny_encoders.NAME), text=text)

    def model_state(self, state: str) -> set[str]:
        samples = Scrape(self.metrics_url).samples
        found = [one.labels for one in samples if one.name == "immich_gateway_model_state" and one.value]
        return {labels["model"] for labels in found if labels["state"] == state}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with recording_upstream() as upstream:
        site = Site(tmp_path_factory.mktemp("idle"), upstream)
        try:
            site.program.wait_until(lambda: "immich-triton is up" in site.console)
            yield site
        finally:
            site.program.stop()


def photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "navy").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def sleeping(site: Site) -> Site:
    assert eventually(site.asleep, 120), site.console
    return site


def test_asleep_nothing_runs_and_everybody_calls_it_well(sleeping: Site, capsys: pytest.CaptureFixture[str]) -> None:
    triton = int((sleeping.run_dir / "triton/triton.pid").read_text())
    assert eventually(lambda: len(processes.tree(triton)) == 1), "no process of a model is left"
    assert sleeping.ping() == (200, "pong")
    assert requests.get(f"{sleeping.metrics_url}/readyz", timeout=30).ok
    assert sleeping.model_state("asleep") == MODELS
    arguments = ["--models", sleeping.models, "--run-dir", sleeping.run_dir, "--state-dir", sleeping.state_dir]
    doctor.main([*map(str, arguments), "--url", sleeping.url, "--triton", sleeping.triton_url])
    assert "see_a is asleep, until somebody asks" in capsys.readouterr().out
    # None of that is a request.
    assert sleeping.asleep()


def test_many_requests_at_once_wake_it_with_one_load(sleeping: Site) -> None:
    before = {model: sleeping.loads(model) for model in MODELS}
    image = photo()

    def one(number: int) -> Answer:
        if number % 2:
            return sleeping.ask()
        return predict(sleeping.url, entries_for("clip", tiny_encoders.NAME), image=image)

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(one, range(24)))
    assert {answer.status for answer in answers} == {200}
    assert {model: sleeping.loads(model) - before[model] for model in MODELS} == dict.fromkeys(MODELS, 1)
    assert "waiting for Triton" not in sleeping.console, "the breaker had nothing to do"
    assert sleeping.upstream.predictions() == []


def test_a_model_that_somebody_else_unloads_is_a_fault(site: Site) -> None:
    assert site.ask().status == 200
    assert requests.post(f"{site.triton_url}/v2/repository/models/clip_text/unload", timeout=60).ok
    try:
        assert eventually(lambda: site.ping()[0] == 503), site.states()
    finally:
        assert requests.post(f"{site.triton_url}/v2/repository/models/clip_text/load", timeout=60).ok
    assert eventually(lambda: site.ping()[0] == 200)


@pytest.mark.slow
def test_a_gateway_that_starts_while_it_sleeps_is_ready_and_wakes_it(sleeping: Site) -> None:
    gateway = int((sleeping.run_dir / "gateway.pid").read_text())
    again = sleeping.count("gateway: answers again")
    os.kill(gateway, signal.SIGKILL)
    sleeping.program.wait_until(lambda: sleeping.count("gateway: answers again") > again)
    assert sleeping.ping() == (200, "pong")
    assert sleeping.asleep()
    assert sleeping.ask().status == 200


@pytest.mark.slow
def test_a_triton_that_dies_while_it_sleeps_comes_back_without_the_models(sleeping: Site) -> None:
    pid_file = sleeping.run_dir / "triton/triton.pid"
    ready = sleeping.count("triton: ready in")
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    sleeping.program.wait_until(lambda: sleeping.count("triton: ready in") > ready)
    assert sleeping.asleep()
    assert eventually(lambda: sleeping.ping() == (200, "pong"))
    assert sleeping.ask().status == 200


@pytest.mark.slow
def test_a_model_that_is_replaced_while_it_sleeps_is_loaded_with_its_new_files(sleeping: Site) -> None:
    loads = sleeping.loads("read_a")
    changed = sleeping.count("the files of model read_a changed; it sleeps")
    encoder = sleeping.encoders["read_a"]
    other = tiny_encoders.TinyEncoder(sleeping.models, "read_a", encoder.seed + 100, visual=False)
    other.write()
    tiny_encoders.route("see_a", "read_a", sleeping.models)
    try:
        sleeping.program.wait_until(lambda: sleeping.count("the files of model read_a changed; it sleeps") > changed)
        assert sleeping.loads("read_a") == loads
        # Its fingerprint is that of the route, so an old one would get 503.
        assert eventually(lambda: sleeping.ask().status == 200)
        assert sleeping.loads("read_a") == loads + 1
    finally:
        encoder.write()
        tiny_encoders.route("see_a", "read_a", sleeping.models)
        assert eventually(lambda: sleeping.ask().status == 200)


def test_a_model_that_cannot_be_loaded_again_is_seen_and_never_answered_by_another(sleeping: Site) -> None:
    model = sleeping.models / "read_a/1/model.onnx"
    whole = model.read_bytes()
    model.write_bytes(b"no model")
    try:
        with ThreadPoolExecutor(1) as client:
            waiting = client.submit(sleeping.ask)
            # Not any 503: a busy Triton may have been late with an answer.
            seen = eventually(lambda: "read_a: could not be loaded again" in sleeping.ping()[1])
            failed = eventually(lambda: "read_a" in sleeping.model_state("failed"))
            status, _ = sleeping.ping()
            model.write_bytes(whole)
            assert (seen, failed, status) == (True, True, 503), sleeping.console
            assert waiting.result().status == 200, "it waited"
    finally:
        model.write_bytes(whole)
    assert eventually(lambda: sleeping.ping() == (200, "pong"))
    assert sleeping.upstream.predictions() == []
    assert Ledger(sleeping.state_dir).owned()


def test_a_run_directory_that_is_removed_locks_nobody_in(sleeping: Site) -> None:
    (sleeping.run_dir / NAME).unlink()
    assert eventually((sleeping.run_dir / NAME).exists)
    assert eventually(lambda: sleeping.ping() == (200, "pong"))
    assert sleeping.ask().status == 200


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf", "soon"])
def test_what_are_no_minutes_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--idle-unload", minutes])
    assert f"argument --idle-unload: minutes, 0 or more, not {minutes}" in capsys.readouterr().err
