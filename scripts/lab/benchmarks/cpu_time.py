"""CPU time of the services that are compared: what a request costs them, which a busy machine changes little."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.service import listener_of
from immich_triton.server import processes

Clock = Callable[[], float]
"""Returns the CPU time used so far, in seconds."""


def of(urls: Sequence[str]) -> Clock | None:
    """Return the clock of all processes of the services at *urls*; None unless all listen on this machine."""
    found = [listener_of(url) for url in urls]
    roots = [pid for pid in found if pid is not None]
    if not roots or len(roots) < len(found):
        return None
    # The processes that decode images for Triton are none of its descendants, but belong to its session.
    return lambda: sum(map(processes.cpu_seconds, {pid for root in roots for pid in _members(root)}))


def _members(root: int) -> set[int]:
    return {*processes.tree(root), *(pid for pid in processes.pids() if processes.session(pid) == root)}
