"""What is measured, and told apart: by a real mitmdump before a Triton that misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
from gateway_process import ADDON, GatewayProcess, refused_start, running_gateway
from recorder import Recorder, recording_upstream
from scrape import Scrape
from stand_in_triton import StandInTriton, stand_in_triton, write_routes

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.core.observer import RequestDone, Timing
from immich_triton.core.timing import overhead
from immich_triton.immich.ml_client import encode, entries_for, predict

PREFIX = "immich_gateway"
OCR = {"task": "ocr", "input": "image"}
TEXT = {"task": "clip", "input": "text"}


@pytest.fixture(scope="module")
def server() -> Iterator[StandInTriton]:
    with stand_in_triton() as triton:
        yield triton


@pytest.fixture
def triton(server: StandInTriton) -> Iterator[StandInTriton]:
    """The server, which behaves unless a test says otherwise."""
    yield server
    server.behaviour, server.delay, server.unready = {}, 0.0, set()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


def start_gateway(
    server: StandInTriton, upstream: Recorder, directory: Path, **options: Any
) -> AbstractContextManager[GatewayProcess]:
    models = write_routes(directory / "models")
    return running_gateway(directory, models=models, triton_url=server.url, upstream=upstream.url, **options)


@pytest.fixture(scope="module")
def gateway(
    server: StandInTriton, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway that waits long: what can be answered is."""
    directory = tmp_path_factory.mktemp("gateway")
    with start_gateway(server, upstream, directory, immich_query_deadline=120, immich_max_body_mib=1) as process:
        yield process


@pytest.fixture(scope="module")
def hasty(
    server: StandInTriton, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway that soon gives up."""
    with start_gateway(server, upstream, tmp_path_factory.mktemp("hasty"), immich_deadline=2) as process:
        yield process


class Growth:
    """What changed in the metrics since its creation."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._url = gateway.metrics_url
        self._before = Scrape(self._url)

    def of(self, name: str, **labels: str) -> float:
        return Scrape(self._url).value(name, **labels) - self._before.value(name, **labels)

    def of_requests(self, **labels: str) -> float:
        return self.of(f"{PREFIX}_requests_total", **labels)


def gauges(gateway: GatewayProcess, *names: str) -> list[float]:
    scrape = Scrape(gateway.metrics_url)
    return [scrape.value(f"{PREFIX}_{name}") for name in names]


def ask_ocr(gateway: GatewayProcess) -> int:
    return predict(gateway.url, entries_for("ocr"), image=b"image").status


def ask_text(gateway: GatewayProcess) -> int:
    return predict(gateway.url, entries_for("clip-text"), text="猫").status


def post(gateway: GatewayProcess, entries: dict[str, Any], **headers: str) -> requests.Response:
    content_type, body = encode(entries, image=b"image")
    return requests.post(
        f"{gateway.url}/predict", data=body, headers={"content-type": content_type, **headers}, timeout=60
    )


# What is counted


def test_requests_are_counted_by_task_route_outcome_and_reason(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(gateway)
    assert [ask_ocr(gateway), ask_text(gateway), ask_text(gateway)] == [200, 200, 200]
    assert growth.of_requests(**OCR, route="triton", outcome="ok", reason="ok") == 1
    assert growth.of_requests(**TEXT, route="triton", outcome="ok", reason="ok") == 2
    assert growth.of_requests() == 3


def test_a_failure_is_counted_with_its_reason(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(gateway)
    assert post(gateway, {"ocr": {"detection": {}}}).status_code == 422
    assert growth.of_requests(outcome="client_error", reason="protocol") == 1
    triton.behaviour["ocr"] = "500"
    assert ask_ocr(gateway) == 500
    assert growth.of_requests(**OCR, outcome="server_error", reason="server_fault") == 1
    assert growth.of(f"{PREFIX}_triton_faults_total", pipeline="ocr", kind="status") == 3
    assert growth.of(f"{PREFIX}_triton_retries_total", pipeline="ocr", kind="status") == 2


def test_a_time_that_is_over_is_counted_with_its_reason(hasty: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(hasty)
    triton.behaviour["ocr"], triton.unready = "reset", {"ocr"}
    assert ask_ocr(hasty) == 503
    assert growth.of_requests(**OCR, outcome="server_error", reason="unavailable") == 1


def test_what_is_released_and_what_passes_through_is_counted(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(gateway)
    assert post(gateway, entries_for("faces")).status_code == 200
    requests.get(f"{gateway.url}/anything", timeout=60)
    ping = requests.get(f"{gateway.url}/ping", timeout=60)
    assert growth.of_requests(task="other", route="upstream", outcome="released", reason="released") == 1
    assert growth.of(f"{PREFIX}_passed_through_total", kind="predict", status="2xx") == 1
    # Its answer is streamed, and may have arrived before it is over for the gateway.
    assert eventually(lambda: growth.of(f"{PREFIX}_passed_through_total", kind="pass", status="2xx") == 1)
    assert growth.of(f"{PREFIX}_pings_total", status=str(ping.status_code)) == 1


def test_a_split_request_counts_as_one(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(gateway)
    assert post(gateway, {**entries_for("ocr"), **entries_for("faces")}).status_code == 200
    assert growth.of_requests() == growth.of_requests(task="ocr", route="split", outcome="ok") == 1
    assert growth.of(f"{PREFIX}_request_overhead_seconds_count") == 0  # its upstream part may be the longest


def test_what_is_refused_unread_is_counted(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(gateway)
    with socket.create_connection(gateway.address, 60) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
    assert growth.of(f"{PREFIX}_refused_requests_total", reason="too_large", status="413") == 1
    assert growth.of_requests() == 0


def test_a_fallback_and_an_upstream_that_is_away_are_counted(
    server: StandInTriton, triton: StandInTriton, tmp_path: Path
) -> None:
    triton.unready, triton.behaviour = {"ocr"}, {"ocr": "503"}
    models, (port,) = write_routes(tmp_path / "models"), free_ports(1)
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    with (
        recording_upstream() as upstream,
        running_gateway(
            tmp_path / "with",
            models=models,
            triton_url=server.url,
            upstream=upstream.url,
            immich_fallback_tasks="ocr",
        ) as gateway,
    ):
        upstream.answer = (200, b'{"ocr":{},"imageHeight":1,"imageWidth":1}')
        statuses = [ask_ocr(gateway) for _ in range(2)]
        assert statuses[-1] == 200
        assert Scrape(gateway.metrics_url).value(f"{PREFIX}_fallbacks_total", task="ocr") >= 1
    nobody = f"http://127.0.0.1:{port}"
    with running_gateway(tmp_path / "without", models=models, triton_url=server.url, upstream=nobody) as gateway:
        assert requests.get(f"{gateway.url}/anything", timeout=60).status_code == 502
        assert Scrape(gateway.metrics_url).value(f"{PREFIX}_upstream_errors_total", status="502") == 1


# How long it takes


def test_the_time_of_a_request_is_told_apart(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(gateway)
    triton.delay = 1.0
    assert ask_ocr(gateway) == 200
    total, waiting, at_triton, own = (
        growth.of(f"{PREFIX}_request_{part}_seconds_sum", **OCR)
        for part in ("duration", "waiting", "triton", "overhead")
    )
    assert at_triton >= 1.0
    assert own < 1.0
    assert total == pytest.approx(waiting + at_triton + own)
    assert growth.of(f"{PREFIX}_request_duration_seconds_count", **OCR) == 1


def test_waiting_for_a_place_is_not_the_gateways_own_time(gateway: GatewayProcess, triton: StandInTriton) -> None:
    let_it_learn(gateway)
    growth = Growth(gateway)
    triton.delay = 0.5
    with ThreadPoolExecutor(8) as clients, triton.holding():
        pending = [clients.submit(ask_ocr, gateway) for _ in range(8)]
        assert eventually(lambda: gauges(gateway, "triton_calls", "requests_waiting") == [3, 5])
        triton.held = False
        assert {one.result() for one in pending} == {200}
    # Three wait until the first three are answered, and two more for these.
    waiting = growth.of(f"{PREFIX}_request_waiting_seconds_sum", **OCR)
    assert waiting > 3 * 0.5 + 2 * 1.0
    assert growth.of(f"{PREFIX}_request_overhead_seconds_sum", **OCR) < waiting


def let_it_learn(gateway: GatewayProcess) -> None:
    """Let the gateway read how many calls the pipeline can work on: one, and two more may be at Triton.

    It begins to with the first answer, and knows with the second.
    """
    assert [ask_ocr(gateway) for _ in range(2)] == [200, 200]


def test_an_answer_says_where_its_time_went(gateway: GatewayProcess, triton: StandInTriton) -> None:
    triton.delay = 0.2
    answer = predict(gateway.url, entries_for("ocr"), image=b"image")
    parts = dict(re.findall(r"(\w+);dur=([0-9.]+)", answer.headers["server-timing"]))
    assert list(parts) == ["total", "wait", "triton", "gateway"]
    milliseconds = {name: float(value) for name, value in parts.items()}
    assert milliseconds["triton"] >= 200
    assert milliseconds["total"] <= 1000 * answer.seconds
    assert sum(milliseconds.values()) == pytest.approx(2 * milliseconds["total"], abs=0.5)


def test_the_parts_of_several_tasks_overlap_so_there_is_no_rest() -> None:
    clock = Timing(waited=0.1, at_triton=0.9, at_upstream=0.2)
    assert overhead(RequestDone(("ocr",), "triton", True, 200, "ok", 1.5, clock)) == pytest.approx(0.3)
    assert overhead(RequestDone(("clip", "ocr"), "triton", True, 200, "ok", 1.5, clock)) is None
    assert overhead(RequestDone(("ocr",), "split", True, 200, "ok", 1.5, clock)) is None


# What is going on


def test_shows_what_is_in_flight_at_triton_and_waiting(gateway: GatewayProcess, triton: StandInTriton) -> None:
    let_it_learn(gateway)
    names = "requests_in_flight", "triton_calls", "requests_waiting"
    with ThreadPoolExecutor(6) as clients, triton.holding():
        pending = [clients.submit(ask_ocr, gateway) for _ in range(6)]
        assert eventually(lambda: gauges(gateway, *names) == [6, 3, 3])
        now = Scrape(gateway.metrics_url)
        assert now.value(f"{PREFIX}_triton_calls", pipeline="ocr") == 3
        assert now.value(f"{PREFIX}_requests_waiting", pipeline="ocr") == 3
        assert 0 < now.value(f"{PREFIX}_held_bytes") < now.value(f"{PREFIX}_held_bytes_limit") == 256 << 20
        triton.held = False
        assert {one.result() for one in pending} == {200}
    assert eventually(lambda: gauges(gateway, *names, "held_bytes") == [0, 0, 0, 0])


def test_clients_that_vanish_are_not_in_flight(gateway: GatewayProcess, triton: StandInTriton) -> None:
    growth = Growth(gateway)
    content_type, body = encode(entries_for("ocr"), image=b"image")
    head = f"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    with triton.holding(), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(gateway.address, 60)) for _ in range(20)]
        for number, client in enumerate(clients):  # half of them in the middle of the body
            client.sendall(head.encode() + (body if number % 2 else body[:50]))
        assert eventually(lambda: gauges(gateway, "requests_in_flight") == [20])
        stack.close()
        assert eventually(lambda: gauges(gateway, "requests_in_flight") == [0])
        assert eventually(lambda: growth.of_requests(reason="client_gone", outcome="client_gone") == 10)


def test_shows_the_breaker_and_what_is_ready(hasty: GatewayProcess, triton: StandInTriton) -> None:
    assert eventually(lambda: ask_ocr(hasty) == 200)
    growth = Growth(hasty)
    triton.unready, triton.behaviour = {"ocr_rec"}, {"ocr": "503"}
    assert ask_ocr(hasty) == 503

    def up_and_ready() -> list[float]:
        now = Scrape(hasty.metrics_url)
        models = "ocr", "ocr_det", "ocr_rec", "visual"
        return [now.value(f"{PREFIX}_triton_up"), *(now.value(f"{PREFIX}_model_ready", model=name) for name in models)]

    # Eventually: Triton has less than a second to say how it is.
    assert eventually(lambda: up_and_ready() == [1, 1, 1, 0, 1])
    now = Scrape(hasty.metrics_url)
    assert now.value(f"{PREFIX}_breaker_open", pipeline="ocr", models="ocr_det ocr_rec") == 1
    assert now.value(f"{PREFIX}_breaker_open", pipeline="clip_text", models="textual") == 0
    assert growth.of(f"{PREFIX}_breaker_opened_total", pipeline="ocr") == 1
    triton.unready, triton.behaviour = set(), {}
    assert eventually(lambda: gauges(hasty, "breaker_open") == [0])


def test_shows_what_immich_is_owed(hasty: GatewayProcess, triton: StandInTriton) -> None:
    triton.unready, triton.behaviour = {"ocr_rec"}, {"ocr": "503"}
    before = time.time()
    assert ask_ocr(hasty) == 503
    assert eventually(lambda: Scrape(hasty.metrics_url).value(f"{PREFIX}_catch_up_owed", task="ocr") == 1)
    due = Scrape(hasty.metrics_url).value(f"{PREFIX}_catch_up_due_timestamp_seconds", task="ocr")
    assert due >= before - 60  # or since an earlier test
    assert Scrape(hasty.metrics_url).value(f"{PREFIX}_catch_up_owed", task="facial-recognition") == 0


def test_shows_that_triton_is_away(upstream: Recorder, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    models = write_routes(tmp_path / "models")
    with running_gateway(tmp_path, models=models, triton_url=nobody, upstream=upstream.url) as gateway:
        now = Scrape(gateway.metrics_url)
        assert now.value(f"{PREFIX}_triton_up") == now.value(f"{PREFIX}_model_ready") == 0
        assert now.value(f"{PREFIX}_routed_names", task="clip") == 1
        assert requests.get(f"{gateway.metrics_url}/healthz", timeout=60).status_code == 200
        readiness = requests.get(f"{gateway.metrics_url}/readyz", timeout=60)
        assert readiness.status_code == 503
        assert "cannot reach Triton" in readiness.json()["unready"]["ocr_rec"]


def test_readyz_names_the_model_that_is_missing(gateway: GatewayProcess, triton: StandInTriton) -> None:
    def readiness() -> tuple[int, Any]:
        response = requests.get(f"{gateway.metrics_url}/readyz", timeout=60)
        return response.status_code, response.json()

    # Eventually: Triton has less than a second to say how it is.
    assert eventually(lambda: readiness() == (200, {"ready": True, "unready": {}}))
    triton.unready = {"visual"}
    assert eventually(lambda: readiness() == (503, {"ready": False, "unready": {"visual": "not ready in Triton"}}))


def test_says_what_runs(gateway: GatewayProcess) -> None:
    (build,) = Scrape(gateway.metrics_url).families[f"{PREFIX}_build_info"].samples
    assert build.value == 1
    assert set(build.labels) == {"version", "mitmproxy", "tritonclient", "python"}


def test_only_these_three_pages_can_be_read(gateway: GatewayProcess) -> None:
    assert requests.get(f"{gateway.metrics_url}/", timeout=60).status_code == 404
    assert requests.post(f"{gateway.metrics_url}/metrics", timeout=60).status_code == 405
    head = requests.head(f"{gateway.metrics_url}/metrics", timeout=60)
    assert (head.status_code, head.headers["content-type"][:10]) == (200, "text/plain")


def test_the_gateways_own_port_tells_nothing(gateway: GatewayProcess, upstream: Recorder) -> None:
    for page in ("metrics", "healthz", "readyz"):
        assert requests.get(f"{gateway.url}/{page}", timeout=60).content == upstream.answer[1]
        assert upstream.seen[-1].target == f"/{page}"


# What a label may be


def test_nothing_that_a_client_says_becomes_a_label(gateway: GatewayProcess, triton: StandInTriton) -> None:
    scrapes = []
    for word in ("mallory", "Mallory2", "mallory-3"):
        entries = [{word: {"x": {"modelName": word}}}, {"ocr": {word: {"modelName": word}}}]
        entries += [entries_for(task, word) for task in ("ocr", "clip", "faces")]
        for one in entries:
            post(gateway, one, **{"X-Request-ID": word, "User-Agent": word})
        requests.request(word, f"{gateway.url}/{word}?{word}", timeout=60)
        scrapes.append(Scrape(gateway.metrics_url))
    assert "mallory" not in scrapes[-1].text.lower()
    names = f"{PREFIX}_requests_total", f"{PREFIX}_passed_through_total"
    seen = [{tuple(s.labels.items()) for s in scrape.samples if s.name in names} for scrape in scrapes]
    assert seen[0] == seen[1] == seen[2]  # the words differ, the series do not


# Where it is served


def test_a_port_in_use_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        code, printed = refused_start(tmp_path, immich_metrics_listen=f"127.0.0.1:{port}")
    assert code == 1
    assert f"cannot serve metrics on 127.0.0.1:{port}: Address already in use. Choose another address" in printed


def test_a_reloaded_script_counts_from_zero_on_the_same_address(
    server: StandInTriton, upstream: Recorder, triton: StandInTriton, tmp_path: Path
) -> None:
    script = tmp_path / "immich_ml.py"
    shutil.copy(ADDON, script)
    models = write_routes(tmp_path / "models")
    with running_gateway(
        tmp_path, models=models, triton_url=server.url, upstream=upstream.url, script=script
    ) as gateway:
        assert ask_ocr(gateway) == 200
        assert Scrape(gateway.metrics_url).value(f"{PREFIX}_requests_total") == 1
        with requests.Session() as session:  # a connection that Prometheus keeps open does not hold the old one alive
            session.get(f"{gateway.metrics_url}/metrics", timeout=60)
            gateway.replace_script(script.read_text() + "\n")
            assert eventually(lambda: gateway.log.count("metrics at http://") == 2)
            assert eventually(lambda: Scrape(gateway.metrics_url).value(f"{PREFIX}_requests_total") == 0)
        assert ask_ocr(gateway) == 200
        assert Scrape(gateway.metrics_url).value(f"{PREFIX}_requests_total", **OCR) == 1
        assert "Traceback" not in gateway.whole_log()


def test_can_be_switched_off(server: StandInTriton, upstream: Recorder, triton: StandInTriton, tmp_path: Path) -> None:
    models = write_routes(tmp_path / "models")
    with running_gateway(
        tmp_path, models=models, triton_url=server.url, upstream=upstream.url, immich_metrics_listen=""
    ) as gateway:
        assert ask_ocr(gateway) == 200
        assert "metrics at" not in gateway.whole_log()
        with pytest.raises(requests.ConnectionError):
            Scrape(gateway.metrics_url)


# Request ids


def test_a_request_gets_an_id_that_is_logged_and_returned(gateway: GatewayProcess, triton: StandInTriton) -> None:
    answer = predict(gateway.url, entries_for("ocr"), image=b"image")
    known = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", known)
    assert re.search(rf"\[{known}\] /predict ocr \(image\): ok, 200, milliseconds: total [0-9.]+, wait ", gateway.log)
    assert predict(gateway.url, entries_for("ocr"), image=b"image").headers["x-request-id"] != known


def test_the_id_of_the_client_is_kept(gateway: GatewayProcess, upstream: Recorder, triton: StandInTriton) -> None:
    known = "Immich-2.7.5_abc"
    assert post(gateway, entries_for("ocr"), **{"X-Request-ID": known}).headers["x-request-id"] == known
    assert f"[{known}] /predict ocr" in gateway.log
    # What passes through takes it along.
    assert post(gateway, entries_for("faces"), **{"X-Request-ID": known}).headers["x-request-id"] == known
    assert upstream.seen[-1].header("x-request-id") == known
    # So does the upstream's part of a split request.
    post(gateway, {**entries_for("ocr"), **entries_for("faces")}, **{"X-Request-ID": "split"})
    assert upstream.seen[-1].header("x-request-id") == "split"


@pytest.mark.parametrize("forged", ["a b", "x" * 65, "é", "[x]", "%s", "-x"])
def test_an_id_that_could_forge_the_log_is_replaced(gateway: GatewayProcess, upstream: Recorder, forged: str) -> None:
    headers: dict[str, Any] = {"X-Request-ID": forged.encode()}
    answer = requests.get(f"{gateway.url}/x", headers=headers, timeout=60)
    known = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", known)
    assert upstream.seen[-1].header("x-request-id") == known


def test_triton_is_told_the_id(upstream: Recorder, tmp_path: Path) -> None:
    with (
        recording_upstream() as triton,  # answers what is no inference response
        running_gateway(
            tmp_path, models=write_routes(tmp_path / "models"), triton_url=triton.url, upstream=upstream.url
        ) as gateway,
    ):
        answer = post(gateway, entries_for("ocr"), **{"X-Request-ID": "told"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "told")
        calls = [seen.body for seen in triton.seen if seen.target.endswith("/infer")]
        assert calls
        assert {json.JSONDecoder().raw_decode(body.decode("latin-1"))[0]["id"] for body in calls} == {"told"}
        # The warnings on the way carry it too.
        assert "[told] ocr: waiting for Triton" in gateway.log
        assert "[told] 500: " in gateway.log


def test_answers_before_the_body_and_errors_carry_the_id(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(tmp_path, models=tmp_path / "models", triton_url=nobody, upstream=nobody) as gateway:
        bad_gateway = requests.get(f"{gateway.url}/x", headers={"X-Request-ID": "one"}, timeout=60)
        assert (bad_gateway.status_code, bad_gateway.headers["x-request-id"]) == (502, "one")
        with socket.create_connection(gateway.address, 60) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: h\r\nX-Request-ID: two\r\n\r\n")
            with client.makefile("rb") as answer:  # the connection ends with it
                assert b"\r\nX-Request-ID: two\r\n" in answer.read()
