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
from immich_pipelines.decoding.client import DecodingPool

CLIP_SIDE: Final = 224
WAITING: Final = 2
"""More requests than processes, so that none of these waits for the next."""


def rate(task: str, samples: Sequence[Sample], seconds: float) -> float:
    """Return how many of *samples* all CPUs decode in a second, as the pipeline of *task* has it done."""
    cpus = available_cpus()
    with contextlib.closing(DecodingPool(max(2, cpus), triton=os.getpid())) as pool:
        pool.start()
        images = [sample.image for sample in samples if sample.image is not None]
        decode = (lambda image: pool.squeeze(image, CLIP_SIDE)) if task == "clip" else pool.decode
        return _rate(decode, images, seconds, cpus + WAITING)


def _rate(decode: Callable[[bytes], object], images: Sequence[bytes], seconds: float, threads: int) -> float:
    waiting, lock = cycle(images), Lock()
    for image in images:
        decode(image)
    began = time.perf_counter()

    def work() -> int:
        count = 0
        while time.perf_counter() - began < seconds:
            with lock:
                image = next(waiting)
            decode(image)
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        total = sum(future.result() for future in [pool.submit(work) for _ in range(threads)])
    return total / (time.perf_counter() - began)
