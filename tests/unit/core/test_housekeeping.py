"""Memory stays flat because the collector comes by often."""

from __future__ import annotations

import gc
import weakref

from immich_triton.core import housekeeping
from immich_triton.core.housekeeping import Housekeeping


class Cyclic:
    def __init__(self) -> None:
        self.me = self
        self.body = bytes(100)


def test_garbage_in_cycles_is_gone_after_thirty_thousand_new_objects() -> None:
    thresholds = gc.get_threshold()
    housekeeping._freeze_once.cache_clear()
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


def test_a_script_that_is_loaded_again_freezes_nothing_more() -> None:
    thresholds = gc.get_threshold()
    housekeeping._freeze_once.cache_clear()
    try:
        Housekeeping().running()
        frozen = gc.get_freeze_count()
        kept = [Cyclic() for _ in range(1_000)]  # an old gateway, and requests in flight
        Housekeeping().running()
        assert gc.get_freeze_count() <= frozen
        assert len(kept) == 1_000
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
