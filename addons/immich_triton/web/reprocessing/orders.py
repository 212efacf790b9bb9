"""Orders to process photos again: from the rights of the caller to the job in Immich's queue, and what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from immich_triton.immich.api import Unreachable
from immich_triton.web.account import RunResult
from immich_triton.web.at_once import for_each
from immich_triton.web.immich import Immich, Refused
from immich_triton.web.reprocessing.bull import Queues
from immich_triton.web.reprocessing.not_possible import NotPossible
from immich_triton.web.reprocessing.runs import UNSEEN, Run, Runs, fingerprint
from immich_triton.web.reprocessing.tasks import REFRESH_CLIP, REFRESH_OCR, TASKS, Task
from immich_triton.web.reprocessing.vector_watch import VectorWatch

logger = logging.getLogger(__name__)

PATIENCE: Final = 30.0
"""Seconds to read the text of a photo; it takes a few milliseconds."""


class Orders:
    """What needs the Redis at *url*. Methods raise `NotPossible` and `Unreachable`.

    *told* hears of each run that has ended: the name of its task, and how.
    """

    def __init__(self, url: str, told: Callable[[str, RunResult], None] = lambda _task, _result: None) -> None:
        self.url = url
        self._queues = Queues(url)
        self._runs = Runs(told=told)
        self._vectors = VectorWatch(self._queues, self._runs)
        self._one_by_one = asyncio.Lock()  # who clicks twice orders once

    async def look(self) -> str:
        """Return the version of the BullMQ that keeps Immich's queues; every start looks too."""
        versions = [await self._queues.check(task.queue) for task in TASKS.values()]
        return versions[0]

    async def start(self, immich: Immich, task: Task, photos: Sequence[str]) -> None:
        """Put a job for each of *photos* into Immich's queue, unless it is there already.

        That the caller may have it done must have been shown before.
        """
        async with self._one_by_one:
            await self._queues.check(task.queue)
            found = dict(zip(photos, await self._queues.states(task, photos), strict=True))
            # A job that waits or runs goes on being compared with what there was when it was ordered.
            new = [photo for photo, state in found.items() if state is None or self._is_over(task, photo)]
            before: dict[str, str | None] = {}
            if task is REFRESH_OCR:  # what a running job has left by now is no measure of what it will leave
                seen = [photo for photo in new if found[photo] != "running"]
                before = await for_each(seen, lambda photo: text_of(immich, photo))
            for photo in new:
                self._runs.put(task, photo, Run(before.get(photo)))
            if task is REFRESH_CLIP:
                await self._vectors.expect(new)
            try:
                await self._queues.add(task, photos)
            except NotPossible:
                self._runs.drop(task, new)
                raise
        there = sum(state is not None for state in found.values())
        logger.info("%s: %d put in front of Immich's queue, %d were there", task.name, len(photos) - there, there)

    def _is_over(self, task: Task, photo: str) -> bool:
        run = self._runs.get(task, photo)
        return run is None or run.result is not None

    async def states(self, immich: Immich, photo: str) -> dict[str, Any]:
        """Return what is known of each task for a photo, as JSON; nothing about one that was not ordered lately."""
        return {
            task.name: state for task in TASKS.values() if (state := await self._state(immich, task, photo)) is not None
        }

    async def _state(self, immich: Immich, task: Task, photo: str) -> dict[str, Any] | None:
        (state,) = await self._queues.states(task, [photo])
        if state is not None:
            return {"state": state}
        run = self._runs.get(task, photo)
        if run is None:
            return None
        if run.result is None:
            if task is REFRESH_OCR:
                result = run.compare(await text_of(immich, photo))
            elif self._vectors.awaits(photo):
                return {"state": "running"}  # it has ended this moment
            else:
                result = UNSEEN
            if run.result is None:  # nobody else who asked was faster
                self._runs.settle(task, run, result)
            return result.as_json()
        return run.result.as_json()

    async def close(self) -> None:
        """Close the connections to Redis."""
        self._vectors.stop()
        await self._queues.close()


async def text_of(immich: Immich, photo: str) -> str | None:
    """Return the `fingerprint` of a photo's text, None when the caller may not read it or Immich cannot say."""
    try:
        return fingerprint(await immich.lines_as_rows(photo, within=PATIENCE))
    except (Refused, Unreachable, ValueError, LookupError, TypeError):
        return None
