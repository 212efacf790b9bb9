"""Tasks that the stock ML may answer while Triton is away: at once, also for requests that stood in line before."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway_process import running_gateway
from recorder import recording_upstream
from stand_in_triton import stand_in_triton, write_routes

from harness.program import eventually
from immich_triton.immich.ml_client import Answer, entries_for, predict

DEADLINE = 60


def test_requests_in_line_fall_back_when_triton_goes_away(tmp_path: Path) -> None:
    with (
        stand_in_triton() as triton,
        recording_upstream() as upstream,
        running_gateway(
            tmp_path,
            models=write_routes(tmp_path / "models"),
            triton_url=triton.url,
            upstream=upstream.url,
            immich_fallback_tasks="ocr",
            immich_deadline=DEADLINE,
            immich_max_at_triton=1,
        ) as gateway,
        ThreadPoolExecutor(6) as clients,
    ):

        def ask(_: int) -> Answer:
            return predict(gateway.url, entries_for("ocr"), image=b"image", timeout=2 * DEADLINE)

        triton.delay = 1.0
        triton.behaviour["ocr"] = "reset"
        triton.unready.add("ocr")
        began = time.monotonic()
        answers = [*clients.map(ask, range(6))]
        assert [answer.status for answer in answers] == [200] * 6
        assert len(upstream.predictions()) == 6
        assert eventually(lambda: triton.now == 0)
        assert len(triton.calls) < 6, "those in line did not have to find out for themselves"
        assert time.monotonic() - began < DEADLINE / 2
