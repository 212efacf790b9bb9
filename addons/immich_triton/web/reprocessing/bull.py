"""Immich's queues in Redis, through BullMQ's own library: jobs go in, and what becomes of them is looked at.

``bullmq`` 2.x for Python is of the same generation as the 5.x for Node that Immich runs. 3.x belongs to a later layout
of the keys: a job that it puts into a paused queue is lost when the queue is resumed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
import redis.asyncio
from bullmq import Queue
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from immich_triton.web.reprocessing.not_possible import RedisFailed, UnknownLayout
from immich_triton.web.reprocessing.tasks import Task

PREFIX: Final = "immich_bull"
KNOWN: Final = ((5, 74), (5, 80))
"""The oldest and the newest version of BullMQ in an Immich that this was tried with (2.7.5 and 3.1.0)."""

PATIENCE: Final = 5.0
"""Seconds Redis may take."""
LISTENING: Final = 2.0
"""Seconds of silence after which `Queues.events` comes back with nothing."""

DUPLICATES: Final = "duplicateDetection"

Event = tuple[str, dict[str, str]]
"""Its queue, and its fields."""

_VERSION: Final = re.compile(r"bullmq:(\d+)\.(\d+)\.\d+")


class Queues:
    """The queues in the Redis at *url*. Every method raises `RedisFailed`."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.from_url(  # type: ignore[no-untyped-call]
            url,
            decode_responses=True,
            socket_connect_timeout=PATIENCE,
            socket_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 1),
        )
        self._queues: dict[str, Any] = {}

    async def check(self, queue: str) -> str:
        """Return the version of BullMQ that keeps a queue. Raises `UnknownLayout` if it is none that we know."""
        async with _failing():
            found = await self._redis.hget(_key(queue, "meta"), "version")
        if found is None:
            raise UnknownLayout(f"there is no queue of Immich's named {queue} in this Redis: see web_redis_url")
        version = _VERSION.fullmatch(found)
        if version is None or not KNOWN[0] <= (int(version[1]), int(version[2])) <= KNOWN[1]:
            first, last = (f"{major}.{minor}" for major, minor in KNOWN)
            raise UnknownLayout(
                f"the queue is kept by {found[:40]!r}, and known here are bullmq {first} to {last}: "
                "a job could be lost in a layout that is not known, so none is added"
            )
        return str(found)

    async def add(self, task: Task, photos: Sequence[str]) -> None:
        """Put one job for each photo in front of all that wait, so that it need not wait behind a whole library.

        The first photo is the first to run. Where such a job is there already nothing is added. Call `check` before.
        """
        async with _failing():
            queue = self._queues.get(task.queue)
            if queue is None:
                queue = self._queues[task.queue] = Queue(task.queue, {"prefix": PREFIX, "connection": self._redis})
            await queue.addBulk([self._job(task, photo) for photo in reversed(photos)])

    async def states(self, task: Task, photos: Sequence[str]) -> list[str | None]:
        """Return ``queued``, ``running`` or, when there is no such job (any more), None for each photo."""
        async with _failing(), self._redis.pipeline(transaction=False) as pipe:
            for photo in photos:
                pipe.hmget(_key(task.queue, task.job_id(photo)), "timestamp", "processedOn")
            found = await pipe.execute()
        return [None if made is None else "running" if begun else "queued" for made, begun in found]

    async def running(self, queue: str) -> list[str]:
        """Return the ids of the jobs that run."""
        async with _failing():
            return list(await self._redis.lrange(_key(queue, "active"), 0, -1))

    async def now(self, *queues: str) -> dict[str, str]:
        """Return where the events of each queue end now: what `events` is to begin with."""
        async with _failing():
            last = {queue: await self._redis.xrevrange(_key(queue, "events"), count=1) for queue in queues}
        return {queue: events[0][0] if events else "0-0" for queue, events in last.items()}

    async def events(self, since: dict[str, str]) -> list[Event]:
        """Wait for events after *since*, and move it on. Returns them in the order in which they came about.

        Those at the same millisecond come in the order of the queues in *since*.
        """
        places = {_key(queue, "events"): queue for queue in since}
        async with _failing():
            streams = {key: since[queue] for key, queue in places.items()}
            found = await self._redis.xread(streams, block=round(1000 * LISTENING))
        order = list(since)
        events: list[tuple[int, int, int, Event]] = []
        for key, entries in found:
            queue = places[key]
            since[queue] = entries[-1][0]
            for entry, fields in entries:
                milliseconds, _, count = entry.partition("-")
                events.append((int(milliseconds), order.index(queue), int(count), (queue, fields)))
        return [event for *_, event in sorted(events, key=lambda one: one[:3])]

    async def data_of(self, queue: str, job: str) -> dict[str, Any] | None:
        """Return what a job was given, None when it is over."""
        async with _failing():
            data = await self._redis.hget(_key(queue, job), "data")
        found = orjson.loads(data) if data else None
        return found if isinstance(found, dict) else None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    @staticmethod
    def _job(task: Task, photo: str) -> dict[str, Any]:
        # What Immich itself gives, and: in front (a priority would put it behind all others), with an id of its own,
        # which is free again however the job ends.
        options = {"jobId": task.job_id(photo), "attempts": 1, "lifo": True}
        options |= {"removeOnComplete": True, "removeOnFail": True}
        return {"name": task.job, "data": {"id": photo, **task.data}, "opts": options}


def _key(queue: str, name: str) -> str:
    return f"{PREFIX}:{queue}:{name}"


@asynccontextmanager
async def _failing() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise RedisFailed(f"Redis did not answer as it should ({type(error).__name__})") from error
