"""Memory stays flat because the collector comes by often."""

from __future__ import annotations

import gc
import weakref

from immich_triton.housekeeping import Housekeeping


class Cyclic:
    def __init__(self) -> None:
        self.me = self
        self.body = bytes(100)


def test_garbage_in_cycles_is_gone_after_thirty_thousand_new_objects() -> None:
    thresholds = gc.get_threshold()
    try:
        Housekeeping().running()
        assert gc.get_freeze_count() > 10_000
        old = Cyclic()
        gc.collect()  # now it is in the oldest generation
        watch = weakref.ref(old)
        del old
        kept = [[index] for index in range(30_000)]
        assert watch() is None
        assert len(kept) == 30_000
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
