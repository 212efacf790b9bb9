"""Looking at real answers: comments, content views, commands and shadow mode, with Triton behind mitmweb.

The other side is an upstream that gives the answers a stock Immich ML 2.7.5 gave for the same images.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from embedded_triton import TritonServer
from mitmweb import Mitmweb, running_mitmweb
from recorder import Recorder, recording_upstream

from harness.program import eventually
from immich_triton.immich.ml_client import ENTRIES, entries_for, predict

DATA = Path(__file__).parents[1] / "data"
RECEIPT = DATA / "images" / "zh_receipt.jpg"
STOCK = (DATA / "stock" / "zh_receipt.jpg.ocr.json").read_bytes()
MODEL = "PP-OCRv5_mobile"


@pytest.fixture(scope="module")
def triton(ocr_triton: TritonServer) -> TritonServer:
    return ocr_triton


@pytest.fixture(scope="module")
def stock() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        recorder.answer = (200, STOCK)
        yield recorder


@pytest.fixture(scope="module")
def web(
    triton: TritonServer, stock: Recorder, ocr_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mitmweb]:
    with running_mitmweb(
        tmp_path_factory.mktemp("mitmweb"), models=ocr_models, triton_url=triton.url, upstream=stock.url
    ) as running:
        assert eventually(lambda: requests.get(f"{running.gateway.url}/ping", timeout=5).ok)
        yield running


@pytest.fixture
def receipt(web: Mitmweb, stock: Recorder) -> dict[str, str]:
    """A flow: the receipt, read by Triton."""
    stock.seen.clear()
    assert predict(web.gateway.url, entries_for("ocr"), image=RECEIPT.read_bytes()).status == 200
    return web.last()


def test_the_flow_list_says_who_answered(receipt: dict[str, str]) -> None:
    assert receipt["comment"].startswith(f"ocr {MODEL} → ocr · ")
    assert receipt["comment"].endswith(" ms")
    assert receipt["marked"] == ""


def test_the_views_show_request_and_answer(web: Mitmweb, receipt: dict[str, str]) -> None:
    name, text = web.shown(receipt, "request")
    assert name == "Immich request"
    assert text.splitlines()[0] == "ocr:"
    assert f"image: JPEG, 1440 x 1920 pixels, {RECEIPT.stat().st_size:,} bytes" in text
    assert f"answered by: ocr {MODEL} → ocr" in text
    name, text = web.shown(receipt, "response")
    assert name == "Immich answer"
    assert "ocr: 9 lines" in text
    assert '  1: "华东超市购物小票"' in text


def test_routes(web: Mitmweb) -> None:
    (line,) = web.command("immich.routes")
    assert line.startswith("ocr PP-OCRv5_mobile, ")
    assert line.endswith(": ready")
    assert eventually(lambda: any(line in event["message"] for event in web.call("GET", "/events")))


def test_compare_with_the_upstream(web: Mitmweb, stock: Recorder, receipt: dict[str, str]) -> None:
    web.command("immich.compare", f"@{receipt['id']}")
    assert eventually(lambda: " | " in web.last()["comment"])
    comment, _, summary = web.last()["comment"].partition(" | ")
    assert comment == receipt["comment"]
    assert summary.startswith("ocr 9 of 9/9 lines match, IoU 0.")
    assert ", upstream " in summary
    # The upstream got the same question about the same bytes.
    (asked,) = stock.predictions()
    assert RECEIPT.read_bytes() in asked.body
    assert json.dumps(ENTRIES["ocr"], separators=(",", ":")).encode() in asked.body
    _, text = web.shown(web.last(), "response")
    assert f"comparison with {stock.url}" in text
    assert "\n  = 华东超市购物小票\n" in text
    assert "华东" not in web.gateway.whole_log()

    # Once more: the new result replaces the old one.
    web.command("immich.compare", f"@{receipt['id']}")
    assert eventually(lambda: len(stock.predictions()) == 2 and web.last()["comment"].count(" | ") == 1)


def test_compare_without_an_upstream_that_answers(web: Mitmweb, stock: Recorder, receipt: dict[str, str]) -> None:
    stock.answer = (500, b"Internal Server Error")
    try:
        web.command("immich.compare", f"@{receipt['id']}")
        assert eventually(lambda: web.last()["comment"].endswith("cannot compare: the stock ML answered 500"))
    finally:
        stock.answer = (200, STOCK)


def test_what_passes_through_is_not_compared(web: Mitmweb) -> None:
    predict(web.gateway.url, entries_for("faces"), image=b"image")
    web.command("immich.compare", f"@{web.last()['id']}")
    assert eventually(lambda: web.last()["comment"].endswith("nothing in this request is routed to Triton"))


def test_commands_refuse_other_flows(web: Mitmweb) -> None:
    requests.get(f"{web.gateway.url}/ping", timeout=5)
    flow = web.last()
    for command, arguments in (("immich.compare", []), ("immich.image.save", ["/nowhere"])):
        answer = web.call("POST", f"/commands/{command}", json={"arguments": [f"@{flow['id']}", *arguments]})
        assert answer == {"error": "none of these flows is a POST /predict"}


def test_images_are_saved_as_they_came(web: Mitmweb, receipt: dict[str, str], tmp_path: Path) -> None:
    web.command("immich.image.save", "@all", str(tmp_path / "images"))
    assert (tmp_path / "images" / f"{receipt['id']}.jpg").read_bytes() == RECEIPT.read_bytes()
    answer = web.call("POST", "/commands/immich.image.save", json={"arguments": ["@all", "/proc/nowhere"]})
    assert answer["error"].startswith("cannot write to /proc/nowhere")


def test_shadow_mode_compares_in_the_background(web: Mitmweb, stock: Recorder) -> None:
    stock.seen.clear()
    web.command("set", "immich_shadow", "1")
    try:
        predict(web.gateway.url, entries_for("ocr"), image=RECEIPT.read_bytes())
        assert eventually(lambda: web.command("immich.shadow")[0].startswith("ocr: 1 compared"))
    finally:
        web.command("set", "immich_shadow", "0")
    (asked,) = stock.predictions()
    assert asked.target == "/predict"
    assert "found by both 9, by Triton alone 0" in web.command("immich.shadow")[0]
    predict(web.gateway.url, entries_for("ocr"), image=RECEIPT.read_bytes())
    assert len(stock.predictions()) == 1


def test_shadow_mode_never_delays_an_answer(triton: TritonServer, ocr_models: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        upstream = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with running_mitmweb(
            tmp_path, models=ocr_models, triton_url=triton.url, upstream=upstream, immich_shadow="1"
        ) as web:
            # The upstream takes connections and never answers: whoever waited for it would wait for ever.
            for _ in range(3):
                assert predict(web.gateway.url, entries_for("ocr"), image=RECEIPT.read_bytes()).status == 200
            assert web.command("immich.shadow")[-1] == "skipped while another comparison ran: 2"


def test_shadow_mode_survives_any_upstream(web: Mitmweb, stock: Recorder) -> None:
    def failed() -> int:
        (count,) = re.findall(r"(\d+) failed", web.command("immich.shadow")[0])
        return int(count)

    web.command("set", "immich_shadow", "1")
    try:
        for answer in [(500, b"no"), (200, b"no JSON"), (200, b"[]"), (200, b'{"ocr":{"box":[1]}}')]:
            stock.answer, before = answer, failed()
            assert predict(web.gateway.url, entries_for("ocr"), image=RECEIPT.read_bytes()).status == 200
            assert eventually(lambda expected=before + 1: failed() == expected)  # type: ignore[misc]
    finally:
        web.command("set", "immich_shadow", "0")
        stock.answer = (200, STOCK)
