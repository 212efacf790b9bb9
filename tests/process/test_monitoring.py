"""The files for Prometheus and Grafana: valid, complete, and answered by a real run."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import requests
import tiny_encoders
from embedded_triton import StartTriton, TritonServer
from gateway_process import GatewayProcess, running_gateway
from immich_photos import KEY, Photo
from immich_site import File, running_site
from places import DATA
from prometheus_server import (
    DASHBOARD,
    MONITORING,
    Prometheus,
    metrics_in,
    panels,
    promtool,
    questions,
    running_prometheus,
)
from recorder import recording_upstream
from scrape import Scrape
from site_process import running_web

from harness.program import eventually
from immich_triton.core.observer import Reason, RouteTaken
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.measurements import Measurements
from immich_triton.web.measurements import Measurements as SiteMeasurements

IMAGE = (DATA / "images/tiny_16px.png").read_bytes()
RULES = (MONITORING / "prometheus-rules.yml").read_text(encoding="utf-8")
ALERTS = re.findall(r"- alert: (\w+)\n", RULES)

NEEDS_A_GPU = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes"}


def exported() -> set[str]:
    """Return the names of all samples that the gateway and the site can export."""
    names = set()
    for family in (*Measurements().registry.collect(), *SiteMeasurements().registry.collect()):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


# The files alone


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    for configuration in ("prometheus.yml", "prometheus-compose.yml"):
        assert f"{len(ALERTS)} rules found" in promtool("check", "config", MONITORING / configuration)


def test_both_configurations_call_the_jobs_what_rules_and_dashboard_call_them() -> None:
    for configuration in ("prometheus.yml", "prometheus-compose.yml"):
        text = (MONITORING / configuration).read_text(encoding="utf-8")
        assert re.findall(r"job_name: (\S+)", text) == ["immich-triton", "triton", "immich-site", "mt-photos"]


def test_every_alert_fires_when_it_should_and_not_else() -> None:
    tests = MONITORING / "prometheus-rules-test.yml"
    assert "SUCCESS" in promtool("test", "rules", tests)
    text = tests.read_text(encoding="utf-8")
    assert [alert for alert in ALERTS if alert not in text] == []


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    asked = {name for query in re.findall(r"expr: (.+)\n", RULES) for name in metrics_in(query)}
    asked |= {name for _, query in questions() for name in metrics_in(query)}
    assert {name for name in asked if not name.startswith("nv_")} - exported() == set()


def test_the_dashboard_shows_everything_that_gateway_and_site_count() -> None:
    shown = {name for _, query in questions() for name in metrics_in(query)}
    families = {name.removesuffix("_sum") for name in exported() if not name.endswith(("_bucket", "_count"))}
    families -= {name for name in families if name.startswith("process_")}
    assert {name for name in families if not any(each.startswith(name) for each in shown)} == set()


def test_every_metric_label_reason_and_alert_is_documented() -> None:
    text = (MONITORING / "README.md").read_text(encoding="utf-8")
    metrics = {name.removesuffix("_count") for name in exported() if not name.endswith(("_sum", "_bucket"))}
    words = {name for name in metrics if not name.startswith("process_")} | {*get_args(Reason), *get_args(RouteTaken)}
    assert [word for word in sorted(words) if f"`{word}`" not in text] == []
    labels = {label for family in Measurements().registry.collect() for each in family.samples for label in each.labels}
    assert [label for label in sorted(labels) if f"`{label}`" not in text] == []
    assert f"{len(ALERTS)} alerts" in text


def test_panels_are_told_apart_and_explained() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


# A real run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models") / "models"
    models.mkdir()
    tiny_encoders.repository(models)
    return models


@pytest.fixture(scope="module")
def triton(triton_server: StartTriton, models: Path) -> Iterator[TritonServer]:
    with triton_server(models) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(triton: TritonServer, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with (
        recording_upstream() as upstream,
        running_gateway(
            tmp_path_factory.mktemp("gateway"),
            models=models,
            triton_url=triton.url,
            upstream=upstream.url,
            immich_allow_untrained="true",
        ) as process,
    ):
        yield process


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Give the site in front of a double of Immich whose page is the web app's, and which has a photo with a text."""
    pages = {"/photos": File((DATA / "app/app.html").read_bytes())}
    photos = [Photo(1, ["宫保鸡丁"]), Photo(2)]
    with (
        running_site(photos=photos, files=pages) as immich,
        # A Redis has to be named for the menus; nobody orders anything.
        running_web(tmp_path_factory.mktemp("site"), immich.url, web_redis_url="redis://127.0.0.1:9") as process,
    ):
        yield process


def ask(gateway: GatewayProcess, task: str, **payload: object) -> int:
    return predict(gateway.url, entries_for(task, tiny_encoders.NAME), **payload).status  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prometheus(
    gateway: GatewayProcess, triton: TritonServer, site: GatewayProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that watches a gateway, a Triton and a site at work, and has seen a few scrapes of each."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            assert ask(gateway, "clip", image=IMAGE) == 200
            assert ask(gateway, "clip-text", text="一只猫") == 200
            assert ask(gateway, "clip", image=b"no image") == 400
            requests.get(f"{gateway.url}/ping", timeout=10)
            requests.get(f"{gateway.url}/elsewhere", timeout=10)
            body, headers = {"query": "宫保"}, {"x-api-key": KEY}
            assert requests.post(f"{site.url}/api/search/smart", json=body, headers=headers, timeout=60).ok
            assert requests.get(f"{site.url}/photos", timeout=60).ok

    client = threading.Thread(target=work)
    directory = tmp_path_factory.mktemp("prometheus")
    with running_prometheus(directory, gateway.metrics_url, triton.metrics_url, site.metrics_url) as server:
        client.start()
        try:
            counted = ("immich_gateway_requests_total", "nv_inference_count", "immich_site_texts_total")
            busy = " and ".join(f"sum(increase({name}[5s])) > 0" for name in counted)
            assert eventually(lambda: bool(server.query(busy)), 60)
            yield server
        finally:
            stop.set()
            client.join()


def test_promtool_finds_nothing_to_say_about_the_metrics(gateway: GatewayProcess) -> None:
    assert promtool("check", "metrics", stdin=Scrape(gateway.metrics_url).text) == ""


def test_prometheus_reads_all_that_run_and_the_rules(prometheus: Prometheus) -> None:
    up = {labels["job"]: value for labels, value in prometheus.query("up")}
    assert [up[job] for job in ("immich-triton", "triton", "immich-site")] == [1.0, 1.0, 1.0]

    def rules() -> list[Any]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    assert eventually(lambda: {rule["health"] for rule in rules()} == {"ok"}, 20), rules()
    assert sorted(rule["name"] for rule in rules()) == sorted(ALERTS)


def test_every_panel_is_answered(prometheus: Prometheus, triton: TritonServer) -> None:
    known = set(re.findall(r"^nv_\w+", Scrape(triton.metrics_url).text, re.MULTILINE))
    silent = []
    for title, query in questions():
        asked = {name for name in metrics_in(query) if name.startswith("nv_")} - NEEDS_A_GPU
        assert asked <= known, title
        # What did not happen here has no series, which is no fault of the query.
        if not prometheus.query(query) and not metrics_in(query) & NEEDS_A_GPU:
            silent.append(title)
    assert set(silent) <= {
        "What did not succeed, by reason",
        "Failed calls to Triton, by kind",
        "Answered elsewhere, caught up on",
        "Failed requests",
        "Breaker",
        "Compared answers",
        "Found by",
        "Time of the stock ML, mean",
        "One photo again, per minute",
    }


def test_a_panel_shows_what_happens(prometheus: Prometheus) -> None:
    by_title = dict(questions())
    assert eventually(lambda: prometheus.query(by_title["Models ready"]) != [])
    models = {labels["model"]: value for labels, value in prometheus.query(by_title["Models ready"])}
    assert models == {"clip_image": 1, "clip_text": 1, "see_a": 1, "read_a": 1}
    requests_by_task = {
        (labels["task"], labels["input"]): value for labels, value in prometheus.query(by_title["Requests by task"])
    }
    assert requests_by_task["clip", "text"] > 0
    assert requests_by_task["clip", "image"] > requests_by_task["clip", "text"]
    searches = {labels["kind"]: value for labels, value in prometheus.query(by_title["Searches by outcome"]) if value}
    assert set(searches) == {"hybrid"}
    inferences = {labels["model"]: value for labels, value in prometheus.query(by_title["Inferences by model"])}
    assert inferences["see_a"] > 0
    # The gateway's counts are Triton's: one inference of the pipeline for each text.
    counts = (
        "sum(immich_gateway_request_triton_seconds_count{input='text'}) / sum(nv_inference_count{model='clip_text'})"
    )
    assert eventually(lambda: 0.8 < prometheus.query(counts)[0][1] < 1.2, 10)
