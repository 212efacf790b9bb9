"""Addon: keeps the memory of a gateway that runs for months flat.

A flow is part of reference cycles, so its body, 300 kB of JPEG and often more, lives until Python's garbage collector
looks at the oldest generation. By default that takes 70,000 new objects, here more than a thousand requests, and then
the 400,000 objects of all loaded modules are walked through, which stalls every client.
"""

from __future__ import annotations

import functools
import gc
from typing import Final

THRESHOLDS: Final = (700, 5, 2)
"""When each of the three generations is collected; the oldest after some 12,000 new objects, about 200 requests."""


class Housekeeping:
    """Collects often, and only what came after the start."""

    def running(self) -> None:
        """Take what is loaded out of the collector's sight: it lives as long as the process anyway.

        Once per process: a gateway that is loaded again has requests in flight and an old gateway beside it, which
        would be kept for ever.
        """
        gc.collect()
        _freeze_once()
        gc.set_threshold(*THRESHOLDS)
        # The collector compares with what it found the last time: now nearly nothing.
        gc.collect()


@functools.cache
def _freeze_once() -> None:
    """Freeze what exists; later calls do nothing, also from a script that was loaded again: modules stay loaded."""
    gc.freeze()
