"""Is the cost of many faces less than their number? A photo with many, against single-face recogniser calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.load import Clients, Contender
from benchmarks.samples import Sample
from benchmarks.targets import BenchError, Service

REPEATS: Final = 10


async def measure(service: Service, recognisers: Sequence[Contender], sample: Sample, show: Console) -> dict[str, Any]:
    """Compare the whole request for *sample* with one call of each recogniser for each face in it."""
    faces = len((await service.answer(sample))["facial-recognition"])
    if faces == 0:
        raise BenchError(f"no face was found in {sample.name}")
    whole: list[float] = []
    single: dict[str, list[float]] = {recogniser.name: [] for recogniser in recognisers}
    for _ in range(REPEATS):
        whole.append((await Clients(service).run([sample], 1)).seconds)
        for recogniser in recognisers:
            single[recogniser.name].append((await recogniser.run([sample], 1)).seconds)
    photo = float(np.median(whole))
    results: dict[str, Any] = {"faces": faces, "photo_s": photo}
    title = f"{sample.name}: {faces} faces, {1000 * photo:.0f} ms in all"
    table = Table("one call of the recogniser", "ms", f"the photo costs, in {faces} such calls", title=title)
    for name, seconds in single.items():
        call = float(np.median(seconds))
        share = photo / (faces * call)
        results[name] = {"single_call_s": call, "share_of_single_calls": round(share, 4)}
        table.add_row(name, f"{1000 * call:.1f}", f"{share:.2f}")
    show.print(table)
    return results
