"""mitmweb's flow list tells the story: a comment on every flow, a mark on every error; and its length is bounded."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mitmweb import Mitmweb, running_mitmweb
from places import DATA
from recorder import Recorder, recording_upstream
from small_models import write_model, write_ocr_route

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.immich.ml_client import encode, entries_for, predict

IMAGE = (DATA / "images" / "tiny_16px.png").read_bytes()
KEPT = 8


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def web(upstream: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mitmweb]:
    """A gateway with a route for OCR, and no Triton behind it."""
    directory = tmp_path_factory.mktemp("mitmweb")
    write_ocr_route(write_model(directory / "models", "ocr"))
    with running_mitmweb(
        directory,
        models=directory / "models",
        triton_url=f"http://127.0.0.1:{free_ports(1)[0]}",
        upstream=upstream.url,
        immich_deadline=1,
        immich_keep_flows=KEPT,
    ) as running:
        yield running


def test_waiting_for_triton(web: Mitmweb) -> None:
    assert predict(web.gateway.url, entries_for("ocr"), image=IMAGE).status == 503
    flow = web.last()
    assert flow["comment"] == "503 waiting for Triton · ocr PP-OCRv5_mobile → ocr"
    assert flow["marked"] == "🔴"


def test_a_replay_takes_the_mark_off_what_is_well_again(web: Mitmweb, upstream: Recorder) -> None:
    predict(web.gateway.url, entries_for("ocr"), image=IMAGE)
    failed = web.last()
    assert failed["comment"].startswith("503 waiting for Triton")
    before, upstream.answer = upstream.answer, (200, (DATA / "stock" / "zh_receipt.jpg.ocr.json").read_bytes())
    web.command("set", "immich_fallback_tasks", "ocr")
    try:
        well = web.replay(failed)
    finally:
        web.command("set", "immich_fallback_tasks")  # none
        upstream.answer = before
    assert well["comment"].startswith("ocr PP-OCRv5_mobile → ocr, but Triton was away: passed through · ")
    assert well["marked"] == ""


def test_a_replay_that_fails_for_another_reason_says_that_one(web: Mitmweb) -> None:
    predict(web.gateway.url, entries_for("ocr"), image=IMAGE)
    failed = web.last()
    web.call("PUT", f"/flows/{failed['id']}", json={"request": {"content": "no form"}})
    again = web.replay(failed)
    # Nothing of the first time is left, such as the routes: this time it did not get that far.
    assert again["comment"] == "400 There was an error parsing the body"
    assert again["marked"] == "🔴"


def test_a_replay_leaves_a_mark_that_is_not_ours(web: Mitmweb) -> None:
    requests.get(f"{web.gateway.url}/", timeout=5)
    flow = web.last()
    web.command("flow.mark", f"@{flow['id']}", ":green_circle:")
    assert web.replay(flow)["marked"] == "🟢"


def test_a_ping_says_what_is_missing(web: Mitmweb) -> None:
    requests.get(f"{web.gateway.url}/ping", timeout=5)
    flow = web.last()
    assert flow["comment"].startswith("503 ocr: cannot reach Triton")
    assert flow["marked"] == "🔴"


def test_what_passes_through(web: Mitmweb) -> None:
    requests.get(f"{web.gateway.url}/", timeout=5)
    flow = web.last()
    assert flow["comment"].startswith("passed through · ")
    assert flow["comment"].endswith(" ms")
    assert flow["marked"] == ""


def test_a_prediction_that_passes_through_keeps_its_answer(web: Mitmweb, upstream: Recorder) -> None:
    answer = (DATA / "stock" / "astronaut.jpg.faces.json").read_bytes()
    before, upstream.answer = upstream.answer, (200, answer)
    try:
        predict(web.gateway.url, entries_for("faces"), image=IMAGE)
    finally:
        upstream.answer = before
    flow = web.last()
    assert flow["comment"].startswith("facial-recognition buffalo_l passed through · ")
    assert web.shown(flow, "request")[0] == "Immich request"
    name, text = web.shown(flow, "response")
    assert name == "Immich answer"
    assert "facial-recognition: 1 face\n" in text


@pytest.mark.parametrize("status", [404, 500])
def test_errors_of_the_upstream(web: Mitmweb, upstream: Recorder, status: int) -> None:
    before, upstream.answer = upstream.answer, (status, b'{"detail":"no such thing"}')
    try:
        requests.get(f"{web.gateway.url}/x", timeout=5)
        assert web.last()["comment"] == f"{status} passed through"
        predict(web.gateway.url, entries_for("clip-text"), text="猫")
        flow = web.last()
    finally:
        upstream.answer = before
    assert flow["comment"] == f"{status} no such thing · clip/textual ViT-B-16__openai passed through"
    assert flow["marked"] == "🔴"


def test_bad_requests(web: Mitmweb) -> None:
    content_type, body = encode(entries_for("ocr"), image=IMAGE)
    headers = {"content-type": content_type}
    requests.post(f"{web.gateway.url}/predict", data=body[:-30], headers=headers, timeout=5)
    assert web.last()["comment"] == "400 There was an error parsing the body"
    requests.post(f"{web.gateway.url}/predict", data={"entries": "{}"}, timeout=5)
    assert web.last()["comment"].startswith("passed through · ")


def test_an_answer_before_the_body(web: Mitmweb) -> None:
    host, port = web.gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 411 ")
    # The connection lingers, so that the client gets to read the answer; then the flow ends.
    assert eventually(lambda: web.flows()[-1]["comment"].startswith("411 POST /predict needs a Content-Length"))
    assert web.flows()[-1]["marked"] == "🔴"


def test_without_the_upstream(upstream: Recorder, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    gone, triton = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    with running_mitmweb(tmp_path, models=tmp_path / "models", triton_url=triton, upstream=gone) as web:
        predict(web.gateway.url, entries_for("faces"), image=IMAGE)
        flow = web.last()
    assert flow["comment"].startswith(f"502 The stock Immich ML at {gone} did not answer")
    assert flow["comment"].endswith("facial-recognition buffalo_l passed through")
    assert flow["marked"] == "🔴"


def test_fallback(upstream: Recorder, tmp_path: Path) -> None:
    answer = (DATA / "stock" / "zh_receipt.jpg.ocr.json").read_bytes()
    before, upstream.answer = upstream.answer, (200, answer)
    write_ocr_route(write_model(tmp_path / "models", "ocr"))
    options = {"immich_fallback_tasks": "ocr", "immich_shadow": "1"}
    triton = f"http://127.0.0.1:{free_ports(1)[0]}"
    try:
        with running_mitmweb(
            tmp_path, models=tmp_path / "models", triton_url=triton, upstream=upstream.url, **options
        ) as web:
            assert predict(web.gateway.url, entries_for("ocr"), image=IMAGE).status == 200
            comment = web.last()["comment"]
            assert web.command("immich.shadow")[0] == "ocr: nothing compared, 0 failed"
    finally:
        upstream.answer = before
    assert comment.startswith("ocr PP-OCRv5_mobile → ocr, but Triton was away: passed through · ")


def test_comments_are_shown_without_being_asked_for(web: Mitmweb) -> None:
    columns = web.call("GET", "/options")["web_columns"]["value"]
    assert columns == ["path", "status", "time", "comment"]
    page = requests.get(web.address, timeout=5)
    assert page.text.count("<style>") == page.text.count(".col-comment{width:auto}") == 1
    assert "<title>mitmproxy</title>" in page.text
    assert requests.get(web.url, timeout=5).status_code == 403  # the login form


def test_the_oldest_flows_go(web: Mitmweb) -> None:
    for index in range(3 * KEPT):
        requests.get(f"{web.gateway.url}/number/{index}", timeout=5)
    assert eventually(lambda: bool(web.flows()[-1]["comment"]))
    paths = [flow["request"]["path"] for flow in web.flows()]
    assert paths == [f"/number/{index}" for index in range(2 * KEPT, 3 * KEPT)]


def test_a_flow_that_still_runs_is_not_removed(web: Mitmweb, upstream: Recorder) -> None:
    host, port = web.gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
        assert eventually(lambda: web.flows()[-1]["request"]["path"] == "/slow")
        for index in range(2 * KEPT):
            requests.get(f"{web.gateway.url}/number/{index}", timeout=5)
        assert "/slow" in [flow["request"]["path"] for flow in web.flows()]
        assert len(web.flows()) <= KEPT + 1
        client.sendall(b"body")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    for index in range(2 * KEPT):
        requests.get(f"{web.gateway.url}/number/{index}", timeout=5)
    assert "/slow" not in [flow["request"]["path"] for flow in web.flows()]
    assert len(web.flows()) <= KEPT


def test_flows_from_a_file_stay_as_they_are(web: Mitmweb, tmp_path: Path) -> None:
    requests.get(f"{web.gateway.url}/recorded", timeout=5)
    recorded = web.last()
    file = tmp_path / "flows"
    web.command("save.file", "@all", str(file))
    count = len(web.flows())
    web.command("view.flows.load", str(file))
    assert eventually(lambda: len(web.flows()) == 2 * count)
    loaded = [flow for flow in web.flows() if flow["request"]["path"] == "/recorded"]
    assert [flow["comment"] for flow in loaded] == [recorded["comment"]] * 2


def test_flows_that_mitmweb_starts_with_keep_what_was_noted(web: Mitmweb, upstream: Recorder, tmp_path: Path) -> None:
    predict(web.gateway.url, entries_for("ocr"), image=IMAGE)
    recorded = web.last()
    web.command("save.file", f"@{recorded['id']}", str(tmp_path / "flows"))
    (tmp_path / "models").mkdir()
    with running_mitmweb(
        tmp_path,
        models=tmp_path / "models",
        triton_url=f"http://127.0.0.1:{free_ports(1)[0]}",
        upstream=upstream.url,
        rfile=tmp_path / "flows",
    ) as other:
        # These go through the hooks of a request, as those do that just came.
        assert eventually(lambda: any(flow["request"]["path"] == "/predict" for flow in other.flows()))
        (loaded,) = [flow for flow in other.flows() if flow["request"]["path"] == "/predict"]
        assert loaded["comment"] == recorded["comment"]
        assert "meant for: ocr PP-OCRv5_mobile → ocr" in other.shown(loaded, "request")[1]


def test_nothing_of_a_request_is_logged(web: Mitmweb) -> None:
    predict(web.gateway.url, entries_for("clip-text"), text="geheimnis")
    flow = web.last()
    assert '"geheimnis"' in web.shown(flow, "request")[1]
    assert "geheimnis" not in json.dumps(flow)
    assert "geheimnis" not in web.gateway.log
