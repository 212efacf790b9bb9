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
    """A place in the order: by priority, then by arrival. A request that is tried again keeps its ticket.

    *large*: it may take long, and is one of those that only a part of the places is for.
    """

    def __init__(self, priority: Priority, *, large: bool = False) -> None:
        self.order = (priority, next(_arrivals))
        self.large = large


class Places:
    """A bounded number of places at Triton for the calls of one pipeline, *large* of them for large images.

    A large image waits here until one of its places is free, and not at Triton: there it would take a process, and
    ordinary ones would find none.
    """

    def __init__(
        self, count: int, changed: Callable[[int, int], None] = lambda _waiting, _taken: None, *, large: int = 1
    ) -> None:
        self._count = count
        self._large = large
        self._taken = {False: 0, True: 0}
        self._queues: dict[bool, list[tuple[tuple[Priority, int], asyncio.Future[None]]]] = {False: [], True: []}
        self._changed = changed

    @property
    def taken(self) -> int:
        """How many calls are at Triton."""
        return sum(self._taken.values())

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return sum(not turn.done() for queue in self._queues.values() for _, turn in queue)

    def resize(self, count: int, *, large: int) -> None:
        """Give more or fewer places; calls that are at Triton stay there."""
        self._count, self._large = count, large
        self._admit()

    async def take(self, ticket: Ticket) -> None:
        """Wait for a place and take it; a cancelled wait takes none."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queues[ticket.large], (ticket.order, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                queue = [waiting for waiting in self._queues[ticket.large] if waiting[1] is not turn]
                heapq.heapify(queue)
                self._queues[ticket.large] = queue
                self._tell()
            else:
                # The place came in the same moment as the end.
                self.free(ticket)
            raise

    def free(self, ticket: Ticket) -> None:
        """Give the place of *ticket* back."""
        self._taken[ticket.large] -= 1
        self._admit()

    def _admit(self) -> None:
        while (next_ := self._next()) is not None:
            _, turn = heapq.heappop(self._queues[next_])
            if not turn.done():
                self._taken[next_] += 1
                turn.set_result(None)
        self._tell()

    def _next(self) -> bool | None:
        """Return in which queue the one stands that comes next, by whether it is large; None when nobody may."""
        if self.taken >= self._count:
            return None
        possible = [large for large, queue in self._queues.items() if queue]
        if self._taken[True] >= self._large:
            possible = [large for large in possible if not large]
        return min(possible, key=lambda large: self._queues[large][0][0], default=None)

    def _tell(self) -> None:
        self._changed(self.waiting, self.taken)


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
