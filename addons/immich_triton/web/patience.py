"""How long the side of the text is waited for: at least a while, and as long as something else is waited for anyway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

SOON: Final = 0.01
"""Seconds. None at all would mean without an end."""


class Patience:
    """Ends *seconds* after it was made; while `extended`, after *most* seconds instead.

    Time limits that are under way when it is no longer extended end when they would have ended without it.
    """

    def __init__(self, seconds: float, *, most: float | None = None) -> None:
        now = time.monotonic()
        self._until = now + seconds
        self._latest = self._until if most is None else now + max(seconds, most)
        self.extended = most is not None
        self._limits: dict[asyncio.Timeout, float] = {}

    @property
    def left(self) -> float:
        """Seconds that are left now, never less than `SOON`."""
        return max((self._latest if self.extended else self._until) - time.monotonic(), SOON)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return time.monotonic() >= (self._latest if self.extended else self._until)

    def end(self) -> None:
        """Wait no longer than without anything else; what would have ended before ends now."""
        self.extended = False
        for limit, until in self._limits.items():
            if not limit.expired():
                limit.reschedule(until)

    @asynccontextmanager
    async def limit(self, share: float = 1.0) -> AsyncIterator[asyncio.Timeout]:
        """Raise TimeoutError in what is done here, after a *share* of the time that is left; gives the limit."""
        now = time.monotonic()
        least = now + share * max(self._until - now, SOON)
        async with asyncio.timeout_at(now + share * self.left) as limit:
            self._limits[limit] = least
            try:
                yield limit
            finally:
                del self._limits[limit]
