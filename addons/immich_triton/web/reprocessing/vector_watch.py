"""Watches Immich's queues while photos wait for a new vector, and says of each what became of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.web.reprocessing import runs
from immich_triton.web.reprocessing.bull import DUPLICATES, Event, Queues
from immich_triton.web.reprocessing.not_possible import RedisFailed
from immich_triton.web.reprocessing.tasks import REFRESH_CLIP
from immich_triton.web.reprocessing.vectors import Vectors, Verdict

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

ON_THE_WAY: Final = 15.0
"""Seconds after which an expected job is in the queue, if it ever comes there."""

RESULTS: Final[Mapping[Verdict, runs.Result]] = {
    "made": runs.NEW_VECTOR,
    "failed": runs.NO_ANSWER,
    "unknown": runs.UNSEEN,
}


class VectorWatch:
    """Reads the events of two queues, as long as there is a photo to wait for; results go to *kept*."""

    def __init__(self, queues: Queues, kept: runs.Runs) -> None:
        self._queues = queues
        self._kept = kept
        self._awaited: dict[str, tuple[str, float]] = {}
        self._watch: asyncio.Task[None] | None = None

    def awaits(self, photo: str) -> bool:
        """Whether the end of a photo's job has not been seen yet."""
        return REFRESH_CLIP.job_id(photo) in self._awaited

    async def expect(self, photos: Iterable[str]) -> None:
        """Watch from now on; call it before the jobs are added. Raises `RedisFailed`."""
        if self._watch is None or self._watch.done():
            # Searches for duplicates first: of two events in the same millisecond they are the earlier.
            since = await self._queues.now(DUPLICATES, REFRESH_CLIP.queue)
            vectors = Vectors(await self._queues.running(REFRESH_CLIP.queue))
            self._awaited |= self._named(photos)
            self._watch = create_task(self._until_all_have_ended(since, vectors), name="watch vectors", keep_ref=True)
        else:
            self._awaited |= self._named(photos)

    def stop(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.cancel()

    @staticmethod
    def _named(photos: Iterable[str]) -> dict[str, tuple[str, float]]:
        return {REFRESH_CLIP.job_id(photo): (photo, time.monotonic()) for photo in photos}

    async def _until_all_have_ended(self, since: dict[str, str], vectors: Vectors) -> None:
        try:
            while self._awaited:
                events = await self._queues.events(since)
                for event in events:
                    await self._take(event, vectors)
                if not events:
                    await self._give_up_those_gone()
        except RedisFailed as error:
            logger.warning("what became of %d smart-search jobs is not known: %s", len(self._awaited), error)
            for job in tuple(self._awaited):
                self._settle(job, runs.UNSEEN)

    async def _take(self, event: Event, vectors: Vectors) -> None:
        queue, fields = event
        kind, job = fields.get("event"), fields.get("jobId", "")
        decided: Iterable[tuple[str, Verdict]] = ()
        if queue == DUPLICATES:
            if kind == "added":
                data = await self._queues.data_of(DUPLICATES, job)
                decided = vectors.sought(None if data is None else REFRESH_CLIP.job_id(str(data.get("id"))))
        elif kind == "active":
            data = None if job in self._awaited else await self._queues.data_of(queue, job)
            if data is None or data.get("source") == "upload":  # after others, of a whole library, nothing is sought
                vectors.began(job)
        elif kind in ("completed", "failed"):
            decided = vectors.ended(job)
        for other, verdict in decided:
            self._settle(other, RESULTS[verdict])

    async def _give_up_those_gone(self) -> None:
        """End the wait for jobs that were taken out of the queue, which no event tells."""
        old = time.monotonic() - ON_THE_WAY
        photos = [photo for photo, since in self._awaited.values() if since < old]
        if not photos:
            return
        for photo, state in zip(photos, await self._queues.states(REFRESH_CLIP, photos), strict=True):
            if state is None:
                self._settle(REFRESH_CLIP.job_id(photo), runs.GONE)

    def _settle(self, job: str, result: runs.Result) -> None:
        photo, _ = self._awaited.pop(job, (None, 0.0))
        if photo is not None and (run := self._kept.get(REFRESH_CLIP, photo)) is not None:
            self._kept.settle(REFRESH_CLIP, run, result)
