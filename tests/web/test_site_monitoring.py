"""What the site counts and comments on: every word of it documented, and none of what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import requests
from gateway_process import GatewayProcess
from immich_photos import KEY, Photo
from immich_site import File, ImmichSite
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader
from places import DATA, PROJECT
from scrape import Scrape
from site_process import running_web

from harness.program import eventually
from immich_triton.immich.site_ping import PING, PONG
from immich_triton.web import account, failopen
from immich_triton.web.measurements import Measurements

QUERY = "宫保秘密"
DOCUMENTED = (PROJECT / "monitoring/README.md").read_text(encoding="utf-8")


# What is written about it


def families() -> list[str]:
    """Return the names of all metrics of the site, as Prometheus has them."""
    found = Measurements().registry.collect()
    names = [family.name + ("_total" if family.type == "counter" else "") for family in found]
    return [name for name in names if not name.startswith("process_")]


def test_every_metric_and_label_and_word_is_documented() -> None:
    registry = Measurements().registry
    assert all(name.startswith("immich_site_") for name in families())
    labels = {label for family in registry.collect() for sample in family.samples for label in sample.labels}
    sets = (account.Kind, account.Outcome, account.TextFrom, account.OrderOutcome, account.RunResult)
    words = {word for one in (*sets, failopen.Part, failopen.Reason) for word in get_args(one)}
    for word in (*families(), *labels, *words):
        assert f"`{word}`" in DOCUMENTED, word


def test_no_metric_is_documented_that_there_is_not() -> None:
    written = {word for word in DOCUMENTED.split("`") if word.startswith("immich_site_")}
    assert written == set(families())


# What is counted


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flows") / "flows"


@pytest.fixture(scope="module")
def web(shared_site: ImmichSite, flows: Path) -> Iterator[GatewayProcess]:
    """Give mitmdump that writes its flows into a file."""
    with running_web(
        flows.parent,
        shared_site.url,
        web_ocr_timeout=5000,
        web_redis_url="redis://127.0.0.1:9",
        save_stream_file=flows,
    ) as process:
        yield process


@pytest.fixture
def photos(site: ImmichSite) -> ImmichSite:
    """Give twelve photos, two of them with the text."""
    site.photos = [Photo(number) for number in range(1, 13)]
    site.photos[3].lines = site.photos[7].lines = [QUERY]
    site.files = {"/photos": File((DATA / "app/app.html").read_bytes()), "/other": File(b"<p>no app</p>")}
    return site


def counted(web: GatewayProcess, name: str, **labels: str) -> float:
    return Scrape(web.metrics_url).value(f"immich_site_{name}", **labels)


def ask(web: GatewayProcess, query: str, **more: object) -> requests.Response:
    body = {"query": query, **more}
    return requests.post(f"{web.url}/api/search/smart", json=body, headers={"x-api-key": KEY}, timeout=60)


def comment(flows: Path, path: str) -> str:
    """Return the comment on the last flow with *path* that was saved."""
    found: list[str] = []

    def look() -> bool:
        with flows.open("rb") as file:
            found[:] = [
                flow.comment
                for flow in FlowReader(file).stream()
                if isinstance(flow, HTTPFlow) and flow.request.path.startswith(path)
            ]
        return bool(found)

    assert eventually(look)
    return found[-1]


def test_searches_are_counted_by_kind_and_outcome_and_timed(web: GatewayProcess, photos: ImmichSite) -> None:
    def searches(kind: str, outcome: str) -> float:
        return counted(web, "searches_total", kind=kind, outcome=outcome)

    before = {one: searches(*one) for one in (("hybrid", "ranked"), ("hybrid", "kept"), ("text", "ranked"))}
    assert ask(web, QUERY, size=5).ok
    assert ask(web, QUERY, size=5, page=2).ok
    assert ask(web, f"ocr:{QUERY}").ok
    assert {one: searches(*one) - count for one, count in before.items()} == dict.fromkeys(before, 1)
    assert ask(web, "ocr:").ok
    assert searches("nothing", "empty") == 1
    photos.ml_is_down = True
    assert ask(web, QUERY, size=6).ok
    assert searches("hybrid", "text_alone") == 1
    assert ask(web, "cat").status_code == 500
    assert searches("hybrid", "refused") == 1
    assert counted(web, "texts_total", source="api") >= 2
    count, total, immich, own = (
        counted(web, f"search_{name}", kind="hybrid")
        for name in ("duration_seconds_count", "duration_seconds_sum", "immich_seconds_sum", "own_seconds_sum")
    )
    assert count == 4
    assert total == pytest.approx(immich + own)
    assert immich > 0


def test_a_fault_of_ours_is_counted_by_its_reason(web: GatewayProcess, photos: ImmichSite) -> None:
    before = counted(web, "failed_open_total", part="search", reason="shape")
    photos.broken_searches = True
    ask(web, "fault")
    photos.broken_searches = False
    assert counted(web, "failed_open_total", part="search", reason="shape") == before + 1
    assert counted(web, "searches_total", kind="hybrid", outcome="fault") == 1


def test_pages_and_answers_are_counted(web: GatewayProcess, photos: ImmichSite) -> None:
    before = counted(web, "answers_total", status="2xx")
    for path in ("/photos", "/other"):
        assert requests.get(web.url + path, timeout=60).ok
    assert counted(web, "pages_total", outcome="script_added") == 1
    assert counted(web, "pages_total", outcome="as_it_was") == 1
    assert counted(web, "answers_total", status="2xx") == before + 2
    assert counted(web, "requests_in_flight") == 0


def test_an_order_that_cannot_be_queued_is_counted(web: GatewayProcess, photos: ImmichSite) -> None:
    body = {"assetIds": [photos.photos[0].id], "name": "refresh-ocr"}
    answer = requests.post(f"{web.url}/api/assets/jobs", json=body, headers={"x-api-key": KEY}, timeout=60)
    assert answer.status_code == 503
    assert counted(web, "reprocess_orders_total", task="refresh-ocr", outcome="not_possible") == 1
    assert counted(web, "reprocess_orders_total", task="refresh-clip", outcome="queued") == 0


def test_health_is_that_of_immich(web: GatewayProcess, photos: ImmichSite) -> None:
    assert requests.get(f"{web.metrics_url}/readyz", timeout=60).json() == {"ready": True, "unready": {}}
    assert counted(web, "immich_up") == 1
    assert counted(web, "database_up") == -1
    photos.failing = {"/api/server/ping": 500}
    answer = requests.get(f"{web.metrics_url}/readyz", timeout=60)
    assert (answer.status_code, answer.json()["unready"]) == (503, {"immich": "it does not answer"})
    assert counted(web, "immich_up") == 0


def test_the_ping_is_answered_here(web: GatewayProcess, site: ImmichSite) -> None:
    answer = requests.get(web.url + PING, timeout=60)
    assert (answer.text, answer.headers["Cache-Control"]) == (PONG, "no-store")
    assert not site.of(PING)
    assert requests.get(f"{web.url}{PING}?x", timeout=60).text != PONG


# What is said about it


def test_comments_say_what_was_done_and_nothing_of_the_query(
    web: GatewayProcess, photos: ImmichSite, flows: Path
) -> None:
    assert ask(web, QUERY, size=5).ok
    assert requests.get(f"{web.url}/photos?again", timeout=60).ok
    assert requests.get(f"{web.url}/api/server/version", timeout=60).ok
    page = comment(flows, "/photos?again")
    assert page.startswith("page of the web app: script of the menus added · ")
    said = comment(flows, "/api/search/smart")
    assert said.startswith("hybrid: 12 CLIP + 2 OCR → page 1 · ")
    assert comment(flows, "/api/server/version") == ""
    metrics = Scrape(web.metrics_url)
    assert QUERY not in metrics.text + said
    assert not any(QUERY in label for label in metrics.labels())
