"""Triton's counters, for tests that compare them before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from harness.program import eventually

SILENCE: Final = 0.5


def settled[T](read: Callable[[], T]) -> T:
    """Return what *read* gives, once that has been the same for `SILENCE` seconds.

    Triton counts a request after it has answered it: the Python backend reports a batch at its end.
    """
    value, since = read(), time.monotonic()

    def silent() -> bool:
        nonlocal value, since
        if (now := read()) != value:
            value, since = now, time.monotonic()
        return time.monotonic() - since >= SILENCE

    assert eventually(silent)
    return value


def settles[T](read: Callable[[], T], at: T) -> bool:
    """Return whether *read* comes to give *at*, and stays with it for `SILENCE` seconds."""
    return eventually(lambda: settled(read) == at)
