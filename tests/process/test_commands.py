"""The commands of the command bar, against stand-ins; with a real Triton in tests/e2e/test_inspect.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from looked_at import MANY_LINES, LookedAt, looked_at, ocr_answer

from harness.program import eventually
from immich_triton.immich.ml_client import entries_for, predict


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LookedAt]:
    with looked_at(tmp_path_factory.mktemp("commands"), immich_deadline=5) as running:
        yield running


@pytest.fixture
def flow(gateway: LookedAt) -> dict[str, Any]:
    """A flow: an image in which Triton read a line."""
    assert predict(gateway.web.gateway.url, entries_for("ocr"), image=b"image").status == 200
    return gateway.web.last()


def compared(gateway: LookedAt) -> bool:
    return " | " in gateway.web.last()["comment"]


def test_a_comparison_that_takes_long_holds_nobody_up(gateway: LookedAt, flow: dict[str, Any]) -> None:
    before, gateway.stock.answer = gateway.stock.answer, (200, ocr_answer(MANY_LINES))
    try:
        gateway.web.command("immich.compare", f"@{flow['id']}")
        share = gateway.web.slowest_until(lambda: compared(gateway))
    finally:
        gateway.stock.answer = before
    assert share < 0.5, "mitmproxy answered nothing else meanwhile"
    assert f"ocr 1 of 1/{MANY_LINES} lines match" in gateway.web.last()["comment"]


def test_the_stock_ml_is_not_compared_with_itself(gateway: LookedAt, flow: dict[str, Any]) -> None:
    gateway.triton.behaviour["ocr"], gateway.triton.unready = "reset", {"ocr"}
    gateway.web.command("set", "immich_fallback_tasks", "ocr")
    try:
        gateway.web.command("immich.compare", f"@{flow['id']}")
        assert eventually(lambda: compared(gateway))
    finally:
        gateway.web.command("set", "immich_fallback_tasks")  # none
        gateway.triton.behaviour.clear()
        gateway.triton.unready = set()
    assert gateway.web.last()["comment"].endswith(" | Triton is away; the stock ML answered")
    assert "nothing to compare" in gateway.web.shown(flow, "response")[1]


def test_a_malformed_request_does_not_keep_the_others_images_from_being_saved(
    gateway: LookedAt, flow: dict[str, Any], tmp_path: Path
) -> None:
    assert predict(gateway.web.gateway.url, entries_for("ocr"), image=b"another").status == 200
    other = gateway.web.last()
    gateway.web.call("PUT", f"/flows/{flow['id']}", json={"request": {"content": "no form"}})
    gateway.web.command("immich.image.save", f"@{flow['id']},{other['id']}", str(tmp_path))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {f"{other['id']}.bin": b"another"}
    told = f"1 images saved in {tmp_path}; malformed requests skipped: 1"
    assert eventually(lambda: any(told in event["message"] for event in gateway.web.call("GET", "/events")))
