"""The lists that were ranked lately: ids, nothing else. What stands behind an id is asked anew for every page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from immich_triton.web.pages import Ranked
from immich_triton.web.recent import Recent

MOST: Final = 1000


class Lists(Recent[bytes, Ranked]):
    """At most *most* lists by search. A person who has looked at a page for longer may see it ranked anew."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(most, clock)
