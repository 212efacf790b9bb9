"""Prepare the images of a batch at the same time, and go on with those that are ready when the others are slow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from typing import Final

PATIENCE: Final = 0.1
"""Seconds without another image being ready after which those that are go on without the rest. Previews are decoded in
10 to 30 ms each, so that an ordinary batch stays together and costs one run of its network."""


def in_groups[Job, Prepared](
    pool: Executor, prepare: Callable[[Job], Prepared], jobs: Iterable[tuple[int, Job]], patience: float
) -> Iterator[list[tuple[int, Prepared]]]:
    """Run *prepare* on each job in *pool*, the first ones first; yield (index, result) pairs, in as few groups as that.

    *patience*: see `PATIENCE`. *prepare* must not raise. Within a group the order is that of the indices.
    A job that comes alone is prepared by the caller: two threads that wake each other would gain nothing.
    """
    jobs = list(jobs)
    if len(jobs) == 1:
        ((index, job),) = jobs
        yield [(index, prepare(job))]
        return
    pending = {pool.submit(prepare, job): index for index, job in jobs}
    ready: list[tuple[int, Prepared]] = []
    while pending:
        done, _ = wait(pending, patience if ready else None, FIRST_COMPLETED)
        ready += [(pending.pop(future), future.result()) for future in done]
        if ready and (not done or not pending):
            yield sorted(ready, key=lambda item: item[0])
            ready = []


def in_order[Result](answers: Iterable[tuple[int, Result]]) -> list[Result]:
    """Return the results of (index, result) pairs by their index; for callers that want all of them."""
    return [result for _, result in sorted(answers, key=lambda answer: answer[0])]
