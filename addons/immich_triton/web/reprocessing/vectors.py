"""Which smart-search jobs made a vector, told from what happens in two queues of Immich's. Pure.

Redis says ``completed`` also when the machine learning was down. But Immich looks for duplicates of a photo after each
vector that it made for an upload, and before it says so. So between ``active`` and ``completed`` of a job that went
well a search for duplicates is added, and none for one that failed. Of which photo is not in the event, only in the
search itself, which may be over before it is looked at. Then counting helps: no job has more than one search, and each
search belongs to a job that was running.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["made", "failed", "unknown"]

MOST_OPEN: Final = 2000
"""Jobs that may wait for a verdict; then there is none for them."""


@dataclass
class _Running:
    made: bool = False
    strange: int = 0
    """Searches since it began of whose job nothing is known."""


class Vectors:
    """Takes the events in their order; *running* are the jobs that were running before the first."""

    def __init__(self, running: Iterable[str] = ()) -> None:
        self._running = {job: _Running() for job in running}
        self._open: list[str] = []
        """Jobs that have ended, some of which made a vector."""
        self._strange = 0
        """Searches that belong to jobs that are open, or run and are not known to have made a vector."""
        self._lost_count = False

    def began(self, job: str) -> None:
        """Take note that a job began after whose end duplicates are sought, as far as is known."""
        self._running[job] = _Running()

    def sought(self, job: str | None) -> Iterator[tuple[str, Verdict]]:
        """Take note that duplicates are sought after *job*, None when that is not known; yield what that decides."""
        if job is not None:
            if job in self._running:
                self._running[job].made = True
        else:
            self._strange += 1
            for running in self._running.values():
                running.strange += 1
        yield from self._decided()

    def ended(self, job: str) -> Iterator[tuple[str, Verdict]]:
        """Take note that a job has ended; yield what that decides, of this job and of others."""
        running = self._running.pop(job, None)
        if running is None:
            yield job, "unknown"
        elif running.made:
            yield job, "made"
        elif not running.strange:
            yield job, "failed"
        else:
            self._open.append(job)
        yield from self._decided()

    def _decided(self) -> Iterator[tuple[str, Verdict]]:
        rest = [running for running in self._running.values() if not running.made]
        if self._strange == len(self._open) + len(rest) and not self._lost_count:
            for running in rest:
                running.made, running.strange = True, 0
            yield from self._close("made")
        elif not rest:
            yield from self._close("unknown")
        elif len(self._open) > MOST_OPEN:
            self._lost_count = True
            yield from self._close("unknown")

    def _close(self, verdict: Verdict) -> Iterator[tuple[str, Verdict]]:
        jobs, self._open = self._open, []
        if verdict == "made" or not any(not running.made for running in self._running.values()):
            self._strange, self._lost_count = 0, False
        for job in jobs:
            yield job, verdict
