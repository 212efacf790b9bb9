"""What the gateway itself costs: ``/predict`` through mitmproxy against the same call straight to Triton."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.samples import Sample, weightless
from benchmarks.targets import Target

PREVIEW_KILOBYTES: Final = 300
WARM_UP: Final = 10


async def measure(
    gateway: Target, straight: Target, samples: Sequence[Sample], count: int, show: Console
) -> dict[str, Any]:
    """Measure at concurrency 1 and print a table; returns the figures for ``--json``, in milliseconds.

    Twice: with an image that costs the OCR pipeline nothing but has a preview's size on the wire, where nothing hides
    the gateway; and with the real *samples*, where the time in the networks varies by more than what is looked for,
    so that many pairs are needed.
    """
    table = Table("image", "pairs", "gateway p50 ms", "Triton alone p50 ms", "overhead p50 ms")
    results = {}
    real = [samples[number % len(samples)] for number in range(max(1, count // 5))]
    for name, requests in (("16x16 pixels in 300 kB", [weightless(PREVIEW_KILOBYTES)] * count), ("real", real)):
        with show.status(f"overhead with {len(requests)} images"):
            through, alone = await pairs(gateway, straight, requests)
        figures = {
            "gateway_p50_ms": round(float(np.median(through)) * 1000, 3),
            "triton_p50_ms": round(float(np.median(alone)) * 1000, 3),
            "overhead_p50_ms": round(float(np.median(np.subtract(through, alone))) * 1000, 3),
        }
        results[name] = {"pairs": len(requests), **figures}
        table.add_row(name, str(len(requests)), *(f"{value:.2f}" for value in figures.values()))
    show.print(table)
    return results


async def pairs(first: Target, second: Target, requests: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Ask both about every sample, one right after the other, who goes first in turn; returns the seconds."""
    for target in (first, second):
        for sample in requests[:WARM_UP]:
            await target.ask(sample)
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number, sample in enumerate(requests):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            began = time.perf_counter()
            await (first, second)[which].ask(sample)
            seconds[which].append(time.perf_counter() - began)
    return seconds[0], seconds[1]
