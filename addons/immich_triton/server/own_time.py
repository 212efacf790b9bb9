"""Time as this process lived it: what a frozen container or a suspended machine lost is not counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LONGEST_STEP: Final = 2.0
"""Seconds counted between two looks at most; a clock that is looked at several times a second loses nothing."""


class OwnTime:
    """A clock in seconds, to be looked at several times a second.

    After a thaw everybody else has to catch up first as well: whoever measured the others' silence by the wall would
    take all of them for dead at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._lived = 0.0

    def __call__(self) -> float:
        """Return the seconds lived since the clock was made."""
        now = self._clock()
        self._lived += min(now - self._last, LONGEST_STEP)
        self._last = now
        return self._lived
