"""Which smart-search jobs made a vector, told from what happens in two queues of Immich's. Pure.

Redis says ``completed`` also when the machine learning was down. But Immich looks for duplicates of a photo after each
vector that it made for an upload, and before it says so. So between ``active`` and ``completed`` of a job that went
well an ``AssetDetectDuplicates`` is added, and none for one that failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["made", "failed", "unknown"]


@dataclass
class _Running:
    alone: bool
    made: bool = False
    strange: int = field(default=0)
    """Searches for duplicates since it began of whose photo nothing is known."""


class Vectors:
    """Takes the events in their order; *running* are the jobs that were running before the first."""

    def __init__(self, running: Iterable[str] = ()) -> None:
        self._running = {job: _Running(alone=False) for job in running}

    def began(self, job: str) -> None:
        """Take note that a smart-search job began."""
        for other in self._running.values():
            other.alone = False
        self._running[job] = _Running(alone=not self._running)

    def duplicates_sought(self, job: str | None) -> None:
        """Take note that duplicates are sought after the smart-search *job*; None when it is not known which it was."""
        if job is None:
            for running in self._running.values():
                running.strange += 1
        elif job in self._running:
            self._running[job].made = True

    def ended(self, job: str) -> Verdict:
        """Return what became of a job that has ended."""
        running = self._running.pop(job, None)
        if running is None:
            return "unknown"
        if running.made or (running.strange and running.alone):
            return "made"
        return "unknown" if running.strange else "failed"
