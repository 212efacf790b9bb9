"""Memory that a process of Triton has freed goes back to the system when it has nothing to do.

glibc keeps what is freed for the next request, and a network's buffers for one large image are hundreds of megabytes.
While requests come that is right: pages that were given back have to be cleared anew. Between two bursts it is not.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Final

QUIET_SECONDS: Final = 1.5
"""Without a request, until memory is given back."""


class Trimmer:
    """Gives memory back once after each burst of work; call `worked` after each request, and `close` at the end."""

    def __init__(self, give_back: Callable[[], object] | None = None, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._trim = give_back or trim
        self._quiet_seconds = quiet_seconds
        self._changed = threading.Condition()
        self._worked = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="trimmer", daemon=True)
        self._thread.start()

    def worked(self) -> None:
        """Take note that there was something to do."""
        with self._changed:
            self._worked += 1
            self._changed.notify()

    def close(self) -> None:
        """Stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        trimmed = 0
        while (seen := self._next(trimmed)) is not None:
            if self._next(seen, self._quiet_seconds) == seen:
                trimmed = seen
                self._trim()

    def _next(self, seen: int, within: float | None = None) -> int | None:
        """Wait until more was done than *seen*; return how much was, None when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._worked != seen, within)
            return None if self._closed else self._worked


def trim() -> None:
    """Give the system what this process has freed: ``malloc_trim``; nothing where another C library has none."""
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function:
        function(0)
