"""The main job end to end: real models in the real Triton behind the real gateway; all else at the upstream."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from embedded_triton import TritonServer
from gateway_process import GatewayProcess, running_gateway
from recorder import Recorder, recording_upstream
from requests_toolbelt import MultipartEncoder
from scrape import Scrape

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.cli import predict as predict_command
from immich_triton.immich.ml_client import entries_for, predict

DATA = Path(__file__).parents[1] / "data"
RECEIPT = DATA / "images" / "zh_receipt.jpg"
LINES = [
    "华东超市购物小票",
    "日期 2025-06-10 18:32",
    "苹果 3.5kg ¥28.70",
    "牛奶 2盒 ¥19.80",
    "全麦面包 ¥12.50",
    "鸡蛋 1打 ¥15.90",
    "合计 ¥76.90",
    "会员卡号 6222 0188 3391",
    "谢谢惠顾 欢迎再来",
]
"""What is printed on the receipt. The models leave out some of the narrow spaces, and see a wide yen sign."""


def plain(text: str) -> str:
    return text.replace(" ", "").replace("￥", "¥")


@pytest.fixture(scope="module")
def triton(ocr_triton: TritonServer) -> TritonServer:
    return ocr_triton


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(
    triton: TritonServer, upstream: Recorder, ocr_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway"), models=ocr_models, triton_url=triton.url, upstream=upstream.url
    ) as process:
        yield process


@pytest.fixture(autouse=True)
def _forget(upstream: Recorder) -> None:
    upstream.seen.clear()


def test_reads_the_nine_lines_of_a_receipt_in_order(gateway: GatewayProcess, upstream: Recorder) -> None:
    answer = predict(gateway.url, entries_for("ocr"), image=RECEIPT.read_bytes())
    assert answer.status == 200
    body = answer.body
    assert [plain(text) for text in body["ocr"]["text"]] == [plain(line) for line in LINES]
    assert (body["imageWidth"], body["imageHeight"]) == (1440, 1920)
    assert len(body["ocr"]["box"]) == 8 * 9
    assert all(0 <= value <= 1 for value in body["ocr"]["box"])
    assert all(0.5 <= score <= 1 for score in body["ocr"]["boxScore"])
    assert all(0.8 < score <= 1 for score in body["ocr"]["textScore"])
    assert upstream.seen == []


def test_predict_prints_a_table(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict_command.main([str(RECEIPT), "--url", gateway.url]) == 0
    printed = capsys.readouterr().out
    positions = [printed.index(line[:2]) for line in LINES]
    assert positions == sorted(positions)
    assert "9 lines" in printed
    assert predict_command.main([str(RECEIPT), "--url", gateway.url, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["ocr"]["text"]) == 9


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_answers_nodes_own_client(gateway: GatewayProcess) -> None:
    script = """
    const [url, file, entries] = process.argv.slice(1);
    const form = new FormData();
    form.append('entries', entries);
    form.append('image', new Blob([require('fs').readFileSync(file)]));
    fetch(new URL('/predict', url), { method: 'POST', body: form })
      .then(async (response) => console.log(JSON.stringify([response.ok, await response.json()])));
    """
    arguments = [gateway.url, str(RECEIPT), json.dumps(entries_for("ocr"))]
    printed = subprocess.run(["node", "-e", script, *arguments], capture_output=True, text=True, timeout=60, check=True)
    ok, body = json.loads(printed.stdout)
    assert ok
    ocr = body["ocr"]
    assert {key: len(ocr[key]) for key in ocr} == {"box": 72, "boxScore": 9, "text": 9, "textScore": 9}
    assert all(isinstance(text, str) for text in ocr["text"])


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("ocr", True),
        ("multi_clip_ocr", True),
        ("clip_visual", False),
        ("clip_textual", False),
        ("faces", False),
        ("unknown_task", False),
    ],
)
def test_what_immichs_client_sends(gateway: GatewayProcess, upstream: Recorder, name: str, ours: bool) -> None:
    headers = json.loads((DATA / "wire" / f"{name}.headers.json").read_text())["headers"]
    body = (DATA / "wire" / f"{name}.body").read_bytes()
    response = requests.post(f"{gateway.url}/predict", data=body, headers=headers, timeout=60)
    assert response.status_code == 200
    answer = response.json()
    assert ("ocr" in answer) is ours
    if name == "ocr":
        assert upstream.seen == []
        assert answer["ocr"] == {"box": [], "boxScore": [], "text": [], "textScore": []}
    elif not ours:
        assert answer == {"from": "upstream"}
        assert upstream.seen[0].sha256 == hashlib.sha256(body).hexdigest()


def test_a_request_for_several_tasks_is_split_and_the_answers_are_merged(
    gateway: GatewayProcess, upstream: Recorder
) -> None:
    image = RECEIPT.read_bytes()
    others = {"pet-detection": {"detection": {"modelName": "p", "options": {"x": [1]}}}, **entries_for("clip")}
    answer = predict(gateway.url, {**others, **entries_for("ocr")}, image=image)
    assert answer.status == 200
    assert len(answer.body["ocr"]["text"]) == 9
    assert answer.body["from"] == "upstream"
    (seen,) = upstream.seen
    assert image in seen.body
    assert json.loads(seen.body.split(b"\r\n\r\n")[1].split(b"\r\n")[0]) == others
    assert b"PP-OCR" not in seen.body


def test_an_error_of_the_upstream_fails_the_whole_split_request(gateway: GatewayProcess, upstream: Recorder) -> None:
    good, upstream.answer = upstream.answer, (500, b"Internal Server Error")
    try:
        answer = predict(gateway.url, {**entries_for("clip"), **entries_for("ocr")}, image=RECEIPT.read_bytes())
    finally:
        upstream.answer = good
    assert (answer.status, answer.body) == (500, "Internal Server Error")


def test_detection_alone_and_options_of_the_request(gateway: GatewayProcess) -> None:
    detection = {"ocr": {"detection": {"modelName": "PP-OCRv5_mobile", "options": {"maxResolution": 736}}}}
    body = predict(gateway.url, detection, image=RECEIPT.read_bytes()).body
    assert len(body["ocr"]["boxes"]) == len(body["ocr"]["scores"]) == 9
    assert all(float(x).is_integer() for box in body["ocr"]["boxes"] for point in box for x in point)
    strict: dict[str, Any] = json.loads(json.dumps(entries_for("ocr")))
    strict["ocr"]["recognition"]["options"]["minScore"] = 0.999
    assert len(predict(gateway.url, strict, image=RECEIPT.read_bytes()).body["ocr"]["text"]) < 9


def test_only_half_of_a_task_routed_is_a_clear_400(gateway: GatewayProcess, upstream: Recorder) -> None:
    entries: dict[str, Any] = json.loads(json.dumps(entries_for("ocr")))
    entries["ocr"]["recognition"]["modelName"] = "not-ours"
    answer = predict(gateway.url, entries, image=RECEIPT.read_bytes())
    assert answer.status == 400
    assert "belong together" in answer.body["detail"]
    assert upstream.seen == []


IMAGE = ("blob", RECEIPT.read_bytes(), "application/octet-stream")
OCR = json.dumps(entries_for("ocr"))


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"image": IMAGE}, 422, [{"type": "missing", "loc": ["body", "entries"], "msg": "Field required"}]),
        ({"entries": "{", "image": IMAGE}, 422, "Invalid request format."),
        ({"entries": '{"ocr":{"detection":{}}}', "image": IMAGE}, 422, "Invalid request format."),
        ({"entries": "[]", "image": IMAGE}, 422, "Invalid request format."),
        ({"entries": OCR}, 400, "Either image or text must be provided"),
        ({"entries": OCR, "text": ""}, 400, "Either image or text must be provided"),
        (
            {"entries": '{"ocr":{"recognition":{"modelName":"PP-OCRv5_mobile"}}}', "image": IMAGE},
            400,
            "Task ocr of type recognition depends on output of",
        ),
        ({"entries": OCR, "text": "x" * 1_100_000}, 400, "Part exceeded maximum size of 1024KB."),
        ({"entries": OCR, "image": ("blob", b"", "x/y")}, 400, "the image is empty"),
        ({"entries": OCR, "image": ("blob", b"no image at all", "x/y")}, 400, "no image in a known format"),
        ({"entries": OCR, "image": ("blob", IMAGE[1][:9000], "x/y")}, 400, "cannot be decoded"),
    ],
)
def test_bad_requests_get_stocks_answer(
    gateway: GatewayProcess, upstream: Recorder, fields: dict[str, Any], status: int, detail: Any
) -> None:
    encoder = MultipartEncoder(fields)
    headers = {"Content-Type": encoder.content_type}
    response = requests.post(f"{gateway.url}/predict", data=encoder.to_string(), headers=headers, timeout=60)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    said = response.json()["detail"]
    if isinstance(detail, str):
        assert detail in said
    else:
        assert [{key: item[key] for key in ("type", "loc", "msg")} for item in said] == detail
    assert upstream.seen == []


def test_broken_bodies_get_stocks_answer(gateway: GatewayProcess) -> None:
    def post(content_type: str, body: bytes) -> tuple[int, Any]:
        headers = {"Content-Type": content_type}
        response = requests.post(f"{gateway.url}/predict", data=body, headers=headers, timeout=60)
        return response.status_code, response.json()["detail"]

    assert post("multipart/form-data", b"x") == (400, "Missing boundary in multipart.")
    assert post("multipart/form-data; boundary=b", b"--b\r\nx") == (400, "There was an error parsing the body")


def test_ping_tells_whether_every_route_is_ready(gateway: GatewayProcess) -> None:
    assert eventually(lambda: pong(gateway))


def test_works_without_any_upstream(triton: TritonServer, ocr_models: Path, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(tmp_path, models=ocr_models, triton_url=triton.url, upstream=nobody) as gateway:
        assert predict(gateway.url, entries_for("ocr"), image=RECEIPT.read_bytes()).status == 200
        assert eventually(lambda: pong(gateway))
        passed = predict(gateway.url, entries_for("clip"), image=b"x")
        assert passed.status == 502
        assert "did not answer" in passed.body["detail"]


def test_a_killed_triton_loses_no_photo_and_nothing_goes_upstream(
    triton: TritonServer, gateway: GatewayProcess, upstream: Recorder
) -> None:
    image = RECEIPT.read_bytes()
    with ThreadPoolExecutor(20) as pool:
        work = [pool.submit(predict, gateway.url, entries_for("ocr"), image=image) for _ in range(20)]
        assert eventually(lambda: Scrape(gateway.metrics_url).value("immich_gateway_triton_calls") > 0)
        triton.kill()
        assert eventually(lambda: not pong(gateway))  # it takes seconds to come back
        statuses = [future.result().status for future in work]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 0
    assert upstream.seen == []
    # The same gateway works on.
    assert predict(gateway.url, entries_for("ocr"), image=image).status == 200
    assert eventually(lambda: pong(gateway))


def pong(gateway: GatewayProcess) -> bool:
    """Whether every route is ready, says the gateway. Eventually it does: Triton has less than a second to say so."""
    response = requests.get(f"{gateway.url}/ping", timeout=60)
    said = response.status_code, response.text, response.headers["content-type"]
    return said == (200, "pong", "text/plain; charset=utf-8")
