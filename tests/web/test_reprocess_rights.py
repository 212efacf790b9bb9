"""Who may have photos processed again: whoever may not gets Immich's own refusal, and nothing gets into its queues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
from gateway_process import GatewayProcess
from immich_photos import KEY, OTHER_KEY, WEAK_KEY, Photo, photo_id
from immich_queues import Redis, running_redis
from immich_site import ImmichSite
from site_process import running_web

MINE, FOREIGN, LOCKED, UNKNOWN, NEVER_ORDERED = range(1, 6)
OWNER: Final = {"x-api-key": KEY}


@pytest.fixture(scope="module")
def queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh_queues(queues: Redis) -> None:
    queues.client.flushall()
    for queue in ("ocr", "smartSearch"):
        queues.client.hset(f"immich_bull:{queue}:meta", mapping={"version": "bullmq:5.80.5"})


@pytest.fixture(scope="module")
def web(shared_site: ImmichSite, queues: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_web(tmp_path_factory.mktemp("web"), shared_site.url, web_redis_url=queues.url) as process:
        yield process


@pytest.fixture(params=["2.7.5", "3.1.0"])
def photos(request: pytest.FixtureRequest, site: ImmichSite) -> ImmichSite:
    site.version = request.param
    site.photos = [Photo(MINE, ["合计"]), Photo(FOREIGN, owner=OTHER_KEY), Photo(LOCKED, locked=True)]
    return site


def order(url: str, name: str, ids: Any, *, query: str = "", **more: Any) -> requests.Response:
    return requests.post(
        f"{url}/api/assets/jobs{query}", json={"assetIds": ids, "name": name}, timeout=60, **({"headers": OWNER} | more)
    )


def message(answer: requests.Response) -> Any:
    return answer.json()["message"]


REFUSED: Final = {
    "another user's": ([FOREIGN], OWNER, "", 400),
    "a guessed id": ([UNKNOWN], OWNER, "", 400),
    "a locked one": ([LOCKED], OWNER, "", 400),
    "one's own and another's": ([MINE, FOREIGN], OWNER, "", 400),
    "without a login": ([MINE], {}, "", 401),
    "with a wrong key": ([MINE], {"x-api-key": "wrong"}, "", 401),
    "with a wrong session": ([MINE], {"cookie": "immich_access_token=wrong"}, "", 401),
    "as another user": ([MINE], {"x-api-key": OTHER_KEY}, "", 400),
    "with a key that may start no jobs": ([MINE], {"x-api-key": WEAK_KEY}, "", 403),
    "by a shared link": ([MINE], {}, "?key=of-the-link", 403),
    "by a shared link in a header": ([MINE], {"x-immich-share-key": "of-the-link"}, "", 403),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_may_not_is_refused_as_by_immich_itself_and_nothing_is_queued(
    web: GatewayProcess, photos: ImmichSite, queues: Redis, case: str
) -> None:
    name = "refresh-ocr" if photos.version < "3" else "refresh-clip"
    numbers, headers, query, status = REFUSED[case]
    ids = [photo_id(number) for number in numbers]
    photos.lacking = {"job.create"}
    before = queues.content()
    ours = order(web.url, name, ids, query=query, headers=headers)
    stock = order(photos.url, "refresh-faces", ids, query=query, headers=headers)
    assert (ours.status_code, ours.json()) == (stock.status_code, stock.json())
    assert ours.status_code == status
    assert queues.content() == before
    assert photos.jobs == []


@pytest.mark.parametrize("case", REFUSED)
def test_the_state_is_told_only_to_who_may_change_the_photo(web: GatewayProcess, photos: ImmichSite, case: str) -> None:
    numbers, headers, query, status = REFUSED[case]
    photos.lacking = {"asset.update"}
    photo = photo_id(numbers[-1])
    ours = requests.get(f"{web.url}/api/immich-triton/reprocess/{photo}{query}", headers=headers, timeout=60)
    stock = requests.put(f"{photos.url}/api/assets/{photo}{query}", json={}, headers=headers, timeout=60)
    assert (ours.status_code, ours.json()) == (stock.status_code, stock.json())
    assert ours.status_code == status


def test_a_key_needs_the_right_to_change_photos_too(web: GatewayProcess, photos: ImmichSite, queues: Redis) -> None:
    photos.lacking = {"asset.update"}
    before = queues.content()
    answer = order(web.url, "refresh-ocr", [photo_id(MINE)], headers={"x-api-key": WEAK_KEY})
    assert (answer.status_code, message(answer)) == (403, "Missing required permission: asset.update")
    assert queues.content() == before


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        (OWNER, ""),
        ({"authorization": f"Bearer {KEY}"}, ""),
        ({"cookie": f"immich_access_token={KEY}"}, ""),
        ({}, f"?apiKey={KEY}"),
    ],
)
def test_the_owner_may_by_whatever_login(
    web: GatewayProcess, photos: ImmichSite, queues: Redis, headers: dict[str, str], query: str
) -> None:
    answer = order(web.url, "refresh-ocr", [photo_id(MINE).upper()], query=query, headers=headers)
    stock = order(photos.url, "refresh-faces", [photo_id(MINE)], query=query, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert set(answer.headers) == set(stock.headers)
    job = f"immich-triton-refresh-ocr-{photo_id(MINE)}"
    assert queues.client.lrange("immich_bull:ocr:wait", 0, -1) == [job.encode()]
    stored: Any = queues.client.hgetall(f"immich_bull:ocr:{job}")
    assert (stored[b"name"], json.loads(stored[b"data"])) == (b"Ocr", {"id": photo_id(MINE)})
    wanted = {"attempts": 1, "lifo": True, "removeOnComplete": True, "removeOnFail": True}
    assert json.loads(stored[b"opts"]).items() >= wanted.items()


@pytest.mark.parametrize(
    "ids",
    [
        [],
        None,
        "all",
        [photo_id(number) for number in range(1001)],
        [photo_id(MINE), 7],
        [photo_id(MINE), "../jobs"],
        [photo_id(MINE), f"{photo_id(MINE)}\n"],
        [photo_id(MINE), f"{photo_id(MINE)}/ocr"],
    ],
    ids=["none", "null", "a word", "1,001", "a number", "a path", "a line end", "more"],
)
def test_what_is_no_list_of_ids_is_400_in_the_shape_of_immich(
    web: GatewayProcess, photos: ImmichSite, queues: Redis, ids: Any
) -> None:
    before = queues.content()
    answer = order(web.url, "refresh-clip", ids)
    assert answer.status_code == 400
    assert message(answer).startswith("assetIds")
    shape = {"message"} if photos.version >= "3" else {"message", "error", "statusCode", "correlationId"}
    assert set(answer.json()) == shape
    assert queues.content() == before
    assert [seen.method for seen in photos.seen] == ["POST"], "no photo was asked about"
    assert order(web.url, "refresh-clip", ids, headers={}).status_code == 401


@pytest.mark.parametrize("asked", ["x", "..", "%2e%2e%2fjobs", f"{photo_id(MINE)}%0a"])
def test_a_question_about_what_is_no_id_is_400(web: GatewayProcess, photos: ImmichSite, asked: str) -> None:
    url = f"{web.url}/api/immich-triton/reprocess/{asked}"
    request = requests.Request("GET", url, headers=OWNER).prepare()
    request.url = url  # as it is
    with requests.Session() as session:
        answer = session.send(request, timeout=60)
    assert answer.status_code == 400
    assert photos.seen[-1].target == "/api/assets/00000000-0000-4000-8000-000000000000"


def test_a_question_with_a_body_is_not_kept_for_us(web: GatewayProcess, photos: ImmichSite) -> None:
    url = f"{web.url}/api/immich-triton/reprocess/{photo_id(MINE)}"
    assert requests.get(url, headers=OWNER, data=b"x" * 100, timeout=60).status_code == 404
    assert requests.get(url, headers=OWNER, data=iter([b"x" * 100]), timeout=60).status_code == 404
    assert [seen.method for seen in photos.seen] == ["GET", "GET"]


def test_nothing_is_known_of_a_photo_that_nobody_ordered(web: GatewayProcess, photos: ImmichSite) -> None:
    photos.photos.append(Photo(NEVER_ORDERED))
    answer = requests.get(f"{web.url}/api/immich-triton/reprocess/{photo_id(NEVER_ORDERED)}", headers=OWNER, timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"assetId": photo_id(NEVER_ORDERED), "tasks": {}})


OTHERS: Final[dict[str, Any]] = {
    "refresh-faces": {"json": {"assetIds": [photo_id(MINE)], "name": "refresh-faces"}},
    "another spelling": {"json": {"assetIds": [photo_id(MINE)], "name": "Refresh-OCR"}},
    "no name": {"json": {"assetIds": [photo_id(MINE)]}},
    "a list as a name": {"json": {"assetIds": [photo_id(MINE)], "name": ["refresh-ocr"]}},
    "spaces": {"data": b' { "assetIds" : [ ] , "name" : "refresh-metadata" } '},
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_jobs_are_immichs_byte_for_byte(
    web: GatewayProcess, photos: ImmichSite, queues: Redis, case: str
) -> None:
    before = queues.content()
    headers = OWNER | {"content-type": "application/json"}
    ours = requests.post(f"{web.url}/api/assets/jobs", headers=headers, timeout=60, **OTHERS[case])
    stock = requests.post(f"{photos.url}/api/assets/jobs", headers=headers, timeout=60, **OTHERS[case])
    assert (ours.status_code, ours.content) == (stock.status_code, stock.content)
    through, direct = photos.seen
    assert through.body == direct.body
    assert queues.content() == before


@pytest.mark.parametrize(
    "found", [None, "bullmq:4.15.0", "bullmq:5.73.9", "bullmq:5.81.0", "bullmq:6.0.0", "bee-queue"]
)
def test_into_queues_of_another_layout_nothing_is_put(
    web: GatewayProcess, photos: ImmichSite, queues: Redis, found: str | None
) -> None:
    queues.client.delete("immich_bull:ocr:meta")
    if found:
        queues.client.hset("immich_bull:ocr:meta", mapping={"version": found})
    before = queues.content()
    answer = order(web.url, "refresh-ocr", [photo_id(MINE)])
    assert answer.status_code == 501
    assert (found or "no queue of Immich's") in message(answer)
    assert queues.content() == before
