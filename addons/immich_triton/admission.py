"""Who may ask Triton next, and how much may wait.

A call that is at Triton cannot be taken back over HTTP (Triton 2.51 executes it to its end), so few calls are there and
the rest waits here, where it can leave the queue when its client goes away.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from enum import IntEnum
from typing import Final


class Priority(IntEnum):
    """Order at the queue: a person waits for a query, nobody for an image."""

    QUERY = 0
    IMAGE = 1


_arrivals: Final = itertools.count()


class Ticket:
    """A place in the order: by priority, then by arrival. A request that is tried again keeps its ticket."""

    def __init__(self, priority: Priority) -> None:
        self.order = (priority, next(_arrivals))


class Places:
    """A bounded number of places at Triton for the calls of one pipeline."""

    def __init__(self, count: int, changed: Callable[[int, int], None] = lambda _waiting, _taken: None) -> None:
        self._count = count
        self._taken = 0
        self._queue: list[tuple[tuple[Priority, int], asyncio.Future[None]]] = []
        self._changed = changed

    @property
    def taken(self) -> int:
        """How many calls are at Triton."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return sum(not turn.done() for _, turn in self._queue)

    def resize(self, count: int) -> None:
        """Give more or fewer places; calls that are at Triton stay there."""
        self._count = count
        self._admit()

    async def take(self, ticket: Ticket) -> None:
        """Wait for a place and take it; a cancelled wait takes none."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (ticket.order, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue = [waiting for waiting in self._queue if waiting[1] is not turn]
                heapq.heapify(self._queue)
                self._tell()
            else:
                # The place came in the same moment as the end.
                self.free()
            raise

    def free(self) -> None:
        """Give a place back."""
        self._taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and (self._taken < self._count or self._queue[0][1].done()):
            _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
        self._tell()

    def _tell(self) -> None:
        self._changed(self.waiting, self._taken)


class Budget:
    """Bytes that may be held at the same time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, count: int) -> bool:
        """Take *count* bytes; False, and nothing taken, when that would be too many."""
        if self.held + count > self.limit:
            return False
        self.held += count
        return True

    def take_anyway(self, count: int) -> None:
        """Take *count* bytes even over the limit."""
        self.held += count

    def free(self, count: int) -> None:
        """Give *count* bytes back."""
        self.held -= count
