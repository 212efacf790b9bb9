"""Is the cost of many faces less than their number? A photo with many, against single-face recogniser calls."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from rich.console import Console

from toolbox.bench.load import Clients, Contender
from toolbox.bench.samples import Sample
from toolbox.bench.targets import BenchError, Service

REPEATS: Final = 10


async def measure(service: Service, recogniser: Contender, sample: Sample, show: Console) -> dict[str, Any]:
    """Compare the whole request for *sample* with as many recogniser calls of one face each as it has faces."""
    faces = len((await service.answer(sample))["facial-recognition"])
    if faces == 0:
        raise BenchError(f"no face was found in {sample.name}")
    whole, single = [], []
    for _ in range(REPEATS):
        whole.append((await Clients(service).run([sample], 1)).seconds)
        single.append((await recogniser.run([sample], 1)).seconds)
    photo, call = float(np.median(whole)), float(np.median(single))
    share = photo / (faces * call)
    show.print(
        f"{sample.name}: {faces} faces, {1000 * photo:.0f} ms in all; one recogniser call {1000 * call:.1f} ms: "
        f"{share:.2f} x {faces} single calls"
    )
    return {"faces": faces, "photo_s": photo, "single_call_s": call, "share_of_single_calls": round(share, 4)}
