"""mitmweb's memory stays flat while images go through it, and does not without the bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import flow_memory
import pytest
from looked_at import LookedAt, looked_at
from mitmweb import Mitmweb, running_mitmweb
from recorder import Recorder, recording_upstream
from small_models import write_model, write_ocr_route

from harness.ports import free_ports
from immich_triton.immich.ml_client import predict

KILOBYTES = 300
IMAGE = flow_memory.padded(KILOBYTES)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with recording_upstream() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LookedAt]:
    with looked_at(tmp_path_factory.mktemp("gateway"), immich_deadline=1) as running:
        yield running


def send(web: Mitmweb, count: int) -> None:
    for _ in range(count):
        assert predict(web.gateway.url, flow_memory.PASSES_THROUGH, image=IMAGE).status == 200


def resident(web: Mitmweb) -> float:
    """Return the resident memory in MiB, the least of several looks: what a request holds for a moment is no growth."""
    looks = []
    for _ in range(5):
        send(web, 1)
        looks.append(web.gateway.rss())
    return min(looks) / (1 << 20)


@pytest.mark.parametrize(("keep", "grows"), [(40, False), (0, True)])
def test_memory(upstream: Recorder, tmp_path: Path, keep: int, grows: bool) -> None:
    write_ocr_route(write_model(tmp_path / "models", "ocr"))
    triton = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_mitmweb(
        tmp_path, models=tmp_path / "models", triton_url=triton, upstream=upstream.url, immich_keep_flows=keep
    ) as web:
        send(web, 60)
        settled = resident(web)
        send(web, 150)
        growth = resident(web) - settled
        upstream.seen.clear()
    # What 150 more flows hold: 43 MiB. Half of it is far from both.
    kept = 150 * KILOBYTES * 1000 / (1 << 20)
    assert (growth > kept / 2) == grows, f"{growth:.1f} of {kept:.1f} MiB"


def test_flat_memory_is_told(gateway: LookedAt, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--url", gateway.web.gateway.url, "--count", "40", "--warm-up", "20", "--kilobytes", "20", "--most", "1000"]
    assert flow_memory.main(line) == 0
    assert "growth from 20 to 40 requests: " in capsys.readouterr().out
    assert len(gateway.triton.calls) == 20
    assert len(gateway.stock.predictions()) == 20


@pytest.mark.parametrize("arguments", [["--count", "500"], ["--count", "20", "--warm-up", "19"], ["--count", "0"]])
def test_a_warm_up_that_leaves_nothing_to_measure_is_refused(
    gateway: LookedAt, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert flow_memory.main(["--url", gateway.web.gateway.url, *arguments]) == 1
    assert "leaves nothing to measure after --warm-up" in capsys.readouterr().err


def test_refused_requests_are_no_measurement(gateway: LookedAt, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--url", gateway.web.gateway.url, "--count", "20", "--warm-up", "10", "--kilobytes", "20"]
    before, gateway.stock.answer = gateway.stock.answer, (502, b'{"detail":"nobody there"}')
    try:
        assert flow_memory.main(line) == 1
    finally:
        gateway.stock.answer = before
    assert "flow_memory: what passes through was answered 502: {'detail': 'nobody there'}" in capsys.readouterr().err
    gateway.triton.behaviour["ocr"], gateway.triton.unready = "reset", {"ocr"}
    try:
        assert flow_memory.main(line) == 1
    finally:
        gateway.triton.behaviour.clear()
        gateway.triton.unready = set()
    assert "flow_memory: OCR was answered 503: " in capsys.readouterr().err
