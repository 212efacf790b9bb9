"""The gateway's count of photos, read from its metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canned_gateway import CannedGateway, canned_gateway
from prometheus_client import generate_latest

from immich_triton.cli.tally import Counts, Tally
from immich_triton.core.observer import Reason, RequestDone
from immich_triton.ml.measurements import Measurements


@pytest.fixture
def gateway() -> Iterator[CannedGateway]:
    with canned_gateway() as server:
        yield server


def test_counts_from_where_it_began(gateway: CannedGateway) -> None:
    gateway.counted.update(ok=5, server_error=1)
    tally = Tally(gateway.url, "ocr")
    assert tally.counts() == Counts()
    gateway.counted.update(ok=2, server_error=1, client_gone=1, client_error=1, released=9)
    assert tally.counts() == Counts(answered=2, failed=3)
    tally.begin()
    assert tally.counts() == Counts()
    assert tally.why == ""


def test_the_address_may_end_with_metrics(gateway: CannedGateway) -> None:
    for end in ("", "/", "/metrics"):
        assert Tally(gateway.url + end, "ocr").counts() == Counts()


def test_another_task_is_not_counted(gateway: CannedGateway) -> None:
    tally = Tally(gateway.url, "clip")
    gateway.counted.update(ok=2)
    assert tally.counts() == Counts()


def test_a_look_that_fails_harms_no_other(gateway: CannedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally(gateway.url, "ocr")
    gateway.counted.update(ok=1)
    with monkeypatch.context() as patch:
        patch.setattr(gateway, "metrics", lambda: "no metrics at all")
        assert tally.counts() is None
        assert "are not to be had at" in tally.why
    assert tally.counts() == Counts(answered=1)
    assert tally.why == ""


@pytest.mark.parametrize("sign", ["a later start", "fewer than before"])
def test_a_gateway_that_counts_from_zero_again_is_not_trusted(gateway: CannedGateway, sign: str) -> None:
    gateway.counted.update(ok=5)
    tally = Tally(gateway.url, "ocr")
    if sign == "a later start":
        gateway.began = 2.0
    else:  # a script that was loaded again, in the same process
        gateway.counted.update(ok=-5)
    assert tally.counts() is None
    gateway.counted.update(ok=100)
    assert tally.counts() is None
    assert "started again meanwhile" in tally.why


def test_reads_what_the_gateway_writes(gateway: CannedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    measurements = Measurements()
    monkeypatch.setattr(gateway, "metrics", lambda: generate_latest(measurements.registry).decode())
    tally = Tally(gateway.url, "ocr")
    ends: list[tuple[str, bool, int, Reason]] = [
        ("ocr", True, 200, "ok"),
        ("ocr", True, 503, "unavailable"),
        ("ocr", True, 400, "bad_input"),
        ("clip", True, 200, "ok"),
        ("clip", False, 503, "unavailable"),
    ]
    for task, has_image, status, reason in ends:
        measurements.request_done(RequestDone((task,), "triton", has_image, status, reason, 1.0))
    assert tally.counts() == Counts(answered=1, failed=2)
    assert Tally(gateway.url, "clip").counts() == Counts()
