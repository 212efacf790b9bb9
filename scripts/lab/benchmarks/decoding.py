"""What the CPUs allow: images decoded by the pool that the pipelines use, with nothing behind it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from threading import Lock
from typing import Final

from benchmarks.samples import Sample
from immich_pipelines.cpus import available_cpus
from immich_pipelines.decoding.client import DecodingPool, Picture

CLIP_SIDE: Final = 224


def rate(task: str, samples: Sequence[Sample], seconds: float) -> float:
    """Return how many of *samples* all CPUs decode in a second, as the pipeline of *task* has it done."""
    cpus = available_cpus()
    with contextlib.closing(DecodingPool(max(2, cpus), triton=os.getpid())) as pool:
        pool.start()
        return _rate(pool.squeeze if task == "clip" else pool.decode, task, samples, seconds, cpus)


def _rate(decode: Callable[..., Picture], task: str, samples: Sequence[Sample], seconds: float, cpus: int) -> float:
    waiting, lock = cycle(samples), Lock()
    more = (CLIP_SIDE,) if task == "clip" else ()
    for sample in samples:
        decode(sample.image, *more)
    began = time.perf_counter()

    def work() -> int:
        count = 0
        while time.perf_counter() - began < seconds:
            with lock:
                sample = next(waiting)
            decode(sample.image, *more)
            count += 1
        return count

    with ThreadPoolExecutor(cpus + 2) as threads:  # more than processes: each has one waiting
        total = sum(future.result() for future in [threads.submit(work) for _ in range(cpus + 2)])
    return total / (time.perf_counter() - began)
