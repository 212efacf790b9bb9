"""Orders to process photos again, with a real Redis and the BullMQ of Immich 2.7.5 and of 3.1.0 that takes the jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from gateway_process import GatewayProcess
from immich_photos import KEY, Photo, photo_id
from immich_queues import VERSIONS, Redis, Worker, running_redis, running_worker
from immich_site import ImmichSite
from site_process import running_web

from harness.program import eventually

HEADERS = {"x-api-key": KEY}


@pytest.fixture(scope="module")
def queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module", params=VERSIONS)
def worker(request: pytest.FixtureRequest, queues: Redis, shared_site: ImmichSite) -> Iterator[Worker]:
    queues.client.flushall()
    with running_worker(request.param, queues.port, shared_site.url) as running:
        yield running


@pytest.fixture(scope="module")
def web(shared_site: ImmichSite, queues: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_web(tmp_path_factory.mktemp("web"), shared_site.url, web_redis_url=queues.url) as process:
        yield process


def order(web: GatewayProcess, name: str, *numbers: int) -> requests.Response:
    body = {"assetIds": [photo_id(number) for number in numbers], "name": name}
    return requests.post(f"{web.url}/api/assets/jobs", json=body, headers=HEADERS, timeout=60)


def state(web: GatewayProcess, name: str, number: int) -> dict[str, Any]:
    answer = requests.get(f"{web.url}/api/immich-triton/reprocess/{photo_id(number)}", headers=HEADERS, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["tasks"].get(name, {})
    return found


def ended(web: GatewayProcess, name: str, number: int) -> dict[str, Any]:
    """Return the state once the job is over."""
    assert eventually(lambda: state(web, name, number)["state"] in ("done", "failed"))
    return state(web, name, number)


def test_the_text_is_read_once_and_what_came_of_it_is_seen(
    web: GatewayProcess, site: ImmichSite, worker: Worker, queues: Redis
) -> None:
    site.photos = [Photo(1, ["合计 38元"]), Photo(2, ["exit"])]
    answer = order(web, "refresh-ocr", 1)
    assert (answer.status_code, answer.content) == (204, b"")
    assert ended(web, "refresh-ocr", 1) == {"state": "done", "verified": True, "message": ""}
    assert site.jobs == [("Ocr", photo_id(1))]
    assert [photo.read for photo in site.photos] == [1, 0]
    assert not list(queues.client.scan_iter("*immich-triton-*")), "a job must leave nothing behind"


def test_a_vector_is_made_once_and_that_is_seen(web: GatewayProcess, site: ImmichSite, worker: Worker) -> None:
    site.photos = [Photo(1), Photo(2)]
    assert order(web, "refresh-clip", 1).status_code == 204
    assert ended(web, "refresh-clip", 1) == {"state": "done", "verified": True, "message": ""}
    assert eventually(lambda: len(site.jobs) == 2)
    assert site.jobs == [("SmartSearch", photo_id(1)), ("AssetDetectDuplicates", photo_id(1))]


@pytest.mark.parametrize("name", ["refresh-ocr", "refresh-clip"])
def test_a_run_without_machine_learning_has_failed_though_bullmq_says_completed(
    web: GatewayProcess, site: ImmichSite, worker: Worker, queues: Redis, name: str
) -> None:
    site.photos, site.ml_is_down = [Photo(1, ["合计"])], True
    assert order(web, name, 1).status_code == 204
    found = ended(web, name, 1)
    assert (found["state"], found["verified"]) == ("failed", True)
    assert "machine learning" in found["message"]
    queue = {"refresh-ocr": "ocr", "refresh-clip": "smartSearch"}[name]
    assert f"immich-triton-{name}-{photo_id(1)}" in queues.said(queue, "completed")
    site.ml_is_down = False
    assert order(web, name, 1).status_code == 204
    assert ended(web, name, 1)["state"] == "done"


def test_of_a_photo_without_text_before_and_after_it_is_said_that_nothing_shows(
    web: GatewayProcess, site: ImmichSite, worker: Worker
) -> None:
    site.photos = [Photo(1)]
    order(web, "refresh-ocr", 1)
    found = ended(web, "refresh-ocr", 1)
    assert (found["state"], found["verified"]) == ("done", False)
    assert "no text before and none now" in found["message"]
    assert found["reason"] == "no_text"


@pytest.mark.parametrize(("name", "queue"), [("refresh-ocr", "ocr"), ("refresh-clip", "smartSearch")])
def test_in_a_paused_queue_a_job_waits_is_not_doubled_and_runs_once_afterwards(
    web: GatewayProcess, site: ImmichSite, worker: Worker, queues: Redis, name: str, queue: str
) -> None:
    site.photos = [Photo(1, ["合计"])]
    worker.pause(queue)
    for _ in range(3):
        assert order(web, name, 1).status_code == 204
    assert state(web, name, 1) == {"state": "queued"}
    assert queues.client.llen(f"immich_bull:{queue}:paused") == 1
    assert site.jobs == []
    worker.resume(queue)
    assert ended(web, name, 1)["state"] == "done"
    assert (site.photos[0].read, site.photos[0].embedded) == ((1, 0) if queue == "ocr" else (0, 1))


def test_it_does_not_wait_behind_a_library_and_keeps_the_order_of_the_ids(
    web: GatewayProcess, site: ImmichSite, worker: Worker
) -> None:
    site.photos = [Photo(number, ["合计"]) for number in range(6)]
    worker.pause("ocr")
    for number in (3, 4, 5):
        worker.add("ocr", "Ocr", id=photo_id(number))
    assert order(web, "refresh-ocr", 1, 0, 1, 2).status_code == 204
    worker.resume("ocr")
    assert eventually(lambda: len(site.jobs) == 6)
    assert site.jobs == [("Ocr", photo_id(number)) for number in (1, 0, 2, 3, 4, 5)]


def test_many_photos_at_once_are_all_seen_to_be_done(web: GatewayProcess, site: ImmichSite, worker: Worker) -> None:
    site.photos = [Photo(number) for number in range(24)]
    assert order(web, "refresh-clip", *range(24)).status_code == 204
    found = [ended(web, "refresh-clip", number) for number in range(24)]
    assert found == [{"state": "done", "verified": True, "message": ""}] * 24
    assert [photo.embedded for photo in site.photos] == [1] * 24


def test_of_many_photos_at_once_one_that_fails_is_not_taken_for_done(
    web: GatewayProcess, site: ImmichSite, worker: Worker
) -> None:
    """Two smart-search jobs run at a time, one of which finds no photo: only that one has failed."""
    site.photos = [Photo(number) for number in range(24)]
    worker.pause("smartSearch")
    assert order(web, "refresh-clip", *range(24)).status_code == 204
    lost = site.photos.pop(11)
    worker.resume("smartSearch")
    assert eventually(lambda: sum(job == "SmartSearch" for job, _ in site.jobs) == 24)
    site.photos.insert(11, lost)  # so that its owner may ask
    found = [ended(web, "refresh-clip", number) for number in range(24)]
    assert found[11]["state"] == "failed" or not found[11]["verified"]
    assert all(one["state"] == "done" for number, one in enumerate(found) if number != 11)


def test_a_job_that_was_taken_out_of_the_queue_has_not_run(
    web: GatewayProcess, site: ImmichSite, worker: Worker, queues: Redis
) -> None:
    site.photos = [Photo(1, ["合计"])]
    worker.pause("ocr")
    assert order(web, "refresh-ocr", 1).status_code == 204
    job = f"immich-triton-refresh-ocr-{photo_id(1)}"
    queues.client.lrem("immich_bull:ocr:paused", 0, job)
    queues.client.delete(f"immich_bull:ocr:{job}")
    assert state(web, "refresh-ocr", 1)["state"] == "failed"
    worker.resume("ocr")
    assert site.jobs == []
