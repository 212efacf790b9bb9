"""Shadow mode looks on: whoever waits for an answer does not wait for a comparison."""

from __future__ import annotations

from pathlib import Path

from looked_at import MANY_LINES, looked_at, ocr_answer

from immich_triton.immich.ml_client import entries_for, predict


def test_a_comparison_that_takes_long_holds_nobody_up(tmp_path: Path) -> None:
    with looked_at(tmp_path, immich_shadow="1") as gateway:
        gateway.stock.answer = (200, ocr_answer(MANY_LINES))
        assert predict(gateway.web.gateway.url, entries_for("ocr"), image=b"image").status == 200
        share = gateway.web.slowest_until(lambda: "ocr: 1 compared" in gateway.web.command("immich.shadow")[0])
        assert share < 0.5, "mitmproxy answered nothing else meanwhile"
        assert f"by the upstream alone {MANY_LINES - 1}" in gateway.web.command("immich.shadow")[0]
