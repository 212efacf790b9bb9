"""What was found lately, kept for a while: the oldest goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

KEPT: Final = 600.0
"""Seconds that anything is kept."""


class Recent[K: Hashable, V]:
    """At most *most* values by key, none older than `KEPT`; *clock* gives seconds."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def put(self, key: K, value: V) -> None:
        """Keep a value in the place of an older one of the same key."""
        self._kept.pop(key, None)
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)
        self._kept[key] = self._clock(), value

    def get(self, key: K) -> V | None:
        """Return the value of a key, unless it is too old."""
        if key not in self._kept:
            return None
        made, value = self._kept[key]
        if self._clock() - made > KEPT:
            del self._kept[key]
            return None
        return value

    def __len__(self) -> int:
        return len(self._kept)
