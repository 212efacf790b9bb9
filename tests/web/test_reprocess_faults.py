"""Orders to process photos again that cannot be carried out: no Redis, one that refuses, a fault of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import requests
from gateway_process import kept
from immich_photos import KEY, Photo, photo_id
from immich_queues import running_redis
from immich_site import running_site
from site_process import running_web

from harness.program import eventually

MINE: Final = 1
OWNER: Final = {"x-api-key": KEY}


def order(url: str, headers: dict[str, str] = OWNER) -> requests.Response:
    body = {"assetIds": [photo_id(MINE)], "name": "refresh-ocr"}
    return requests.post(f"{url}/api/assets/jobs", json=body, headers=headers, timeout=60)


def test_without_an_address_of_redis_it_is_501_for_who_might(tmp_path: Path) -> None:
    with running_site(photos=[Photo(MINE)]) as site, running_web(tmp_path, site.url) as web:
        answer = order(web.url)
        assert (answer.status_code, "web_redis_url" in answer.json()["message"]) == (501, True)
        assert order(web.url, headers={}).status_code == 401
        asked = requests.get(f"{web.url}/api/immich-triton/reprocess/{photo_id(MINE)}", headers=OWNER, timeout=60)
        assert asked.status_code == 501


def test_when_redis_refuses_it_is_503_and_no_password_is_shown(tmp_path: Path) -> None:
    with running_redis(tmp_path) as queues, running_site(photos=[Photo(MINE)]) as site:
        where = kept(tmp_path, f"redis://:very-secret@127.0.0.1:{queues.port}/0")
        with running_web(tmp_path, site.url, web_redis_url=where) as web:
            complaint = "photos cannot be processed again: Redis did not answer as it should (AuthenticationError)"
            assert eventually(lambda: complaint in web.log), "it is said at the start"
            answer = order(web.url)
            assert (answer.status_code, "AuthenticationError" in answer.json()["message"]) == (503, True)
            assert web.whole_log().count(complaint) == 2
            assert "very-secret" not in answer.text + web.log
            assert KEY not in web.log


def test_at_the_start_it_is_said_that_the_queues_are_there(tmp_path: Path) -> None:
    with running_redis(tmp_path) as queues, running_site() as site:
        for queue in ("ocr", "smartSearch"):
            queues.client.hset(f"immich_bull:{queue}:meta", mapping={"version": "bullmq:5.74.1"})
        with running_web(tmp_path, site.url, web_redis_url=queues.url) as web:
            assert eventually(lambda: "Immich's queues are there, kept by bullmq:5.74.1" in web.log)
            queues.client.shutdown(nosave=True)
            assert requests.get(f"{web.url}/photos", timeout=60).status_code == 200


PLANTED = """
import immich_web
from immich_triton.web.reprocessing import tasks

def planted(*arguments):
    raise ZeroDivisionError("planted: " + repr(arguments))

tasks.parse = planted
addons = immich_web.addons
"""


def test_a_fault_of_ours_leaves_stock_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "planted.py"
    script.write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "addons"))
    with running_site(photos=[Photo(MINE)]) as site, running_web(tmp_path, site.url, script=script) as web:
        ours = order(web.url)
        stock = order(site.url)
        assert (ours.status_code, ours.content) == (400, stock.content)
        assert eventually(lambda: "because of a fault here" in web.log)
        (line,) = [line for line in web.whole_log().splitlines() if "fault here" in line]
    assert "an order to process photos again is left to Immich as it is" in line
