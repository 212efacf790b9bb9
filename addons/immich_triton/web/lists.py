"""The lists that were ranked lately: ids, nothing else. What stands behind an id is asked anew for every page."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from immich_triton.web.pages import Ranked

KEPT: Final = 600.0
"""Seconds: a person who has looked at a page for longer may see it ranked anew."""

MOST: Final = 1000


class Lists:
    """At most *most* lists, the oldest go first; *clock* gives seconds."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lists: OrderedDict[bytes, tuple[float, Ranked]] = OrderedDict()

    def put(self, key: bytes, ranked: Ranked) -> None:
        """Keep a list in the place of an older one of the same search."""
        self._lists.pop(key, None)
        while len(self._lists) >= self._most:
            self._lists.popitem(last=False)
        self._lists[key] = self._clock(), ranked

    def get(self, key: bytes) -> Ranked | None:
        """Return the list of a search, unless it is too old."""
        made, ranked = self._lists.get(key, (0.0, None))
        if ranked is None or self._clock() - made > KEPT:
            self._lists.pop(key, None)
            return None
        return ranked

    def __len__(self) -> int:
        return len(self._lists)
