"""Watch a job queue of Immich until it is empty, and say what came of the photos."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from immich_triton.cli.tally import Counts, Tally
from immich_triton.core.counting import count
from immich_triton.immich.api import KEPT, QUEUES, Immich, ImmichError
from immich_triton.immich.forced_runs import NOT_FOUND_BY_MISSING

_ATTEMPTS: Final = 10
"""Looks at the queue that may fail in a row before the watch is given up; Immich goes on either way."""


@dataclass(frozen=True)
class Run:
    """A run of *task* (Immich's name): of *everything* or of what is missing, of so many *photos* and videos in all."""

    task: str
    everything: bool
    photos: int

    @property
    def title(self) -> str:
        """Immich's title of the queue."""
        return QUEUES[self.task].title


@dataclass
class Seen:
    """What was seen of a run: jobs left, the *most* at one look, what the gateway counted (None: it is not known)."""

    seconds: float = 0.0
    most: int = 0
    left: int = 0
    counts: Counts | None = None

    def progress(self, run: Run) -> tuple[int, int | None]:
        """Return how many photos are done, and of how many as far as that is known."""
        # One job is the one that fills the queue, bit by bit, while the first photos are done already.
        done = self.counts.asked if self.counts else self.most - self.left
        known = run.photos if run.everything else max(self.most, done + self.left) if self.most > 1 else None
        return (min(done, known), known) if known is not None else (done, None)


def watch(immich: Immich, run: Run, tally: Tally, interval: float) -> Seen:
    """Show the progress until the queue is empty, and return what was seen. Raises `ImmichError`.

    Immich has queued the job that fills the queue when it answers to the start, and that one ends after it has queued
    the last photo: so an empty queue means that all are done.
    """
    columns = TextColumn(run.title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    started, seen = time.monotonic(), Seen()
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=None)
        while True:
            seen.left = patiently(lambda: asyncio.run(immich.queue(run.task)).left, interval)
            seen.most = max(seen.most, seen.left)
            seen.counts = tally.counts()
            if not seen.left:
                break
            done, total = seen.progress(run)
            progress.update(bar, total=total, completed=done)
            time.sleep(interval)
        photos = seen.counts.asked if seen.counts else run.photos if run.everything else max(0, seen.most - 1)
        progress.update(bar, total=photos, completed=photos)
    seen.seconds = time.monotonic() - started
    return seen


def patiently(look: Callable[[], int], interval: float) -> int:
    """Return what *look* sees; one answer that does not come is no reason to end a watch of hours."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return look()
        except ImmichError:
            time.sleep(interval)
    return look()


def tell(run: Run, seen: Seen, why: str, console: Console) -> int:
    """Say what came of a run, or *why* that is not known.

    Return the exit code, 1 when photos are known to be without their result.
    """
    lines = [f"The queue is empty after {duration(seen.seconds)}.", *_outcome(run, seen.counts, why)]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    return int(seen.counts is not None and (seen.counts.failed > 0 or (run.everything and not seen.counts.asked)))


def _outcome(run: Run, counts: Counts | None, why: str) -> list[str]:
    if counts is None:
        again = "run this again with --missing --yes where they are counted, until it says that nothing was missing"
        return [
            f"How many photos were done is not known: {why}.",
            f"Immich does not list photos whose job failed: {again}.",
        ]
    if not counts.asked and run.everything:
        return ["Immich asked the gateway for no photo at all. Are there none, or is it not the one that Immich asks?"]
    if not counts.asked:
        said = ["Nothing was missing: Immich asked the gateway for no photo."]
        return said + [f"But {text}." for task, text in NOT_FOUND_BY_MISSING.items() if task == run.task]
    photos = count(counts.asked, "photo")
    if not counts.failed:
        return [f"Immich asked the gateway for {photos}, and each was answered."]
    failed = f"Immich asked the gateway for {photos}, of which {counts.failed} failed; the gateway's log says why."
    return [failed, _after_failures(run)]


def _after_failures(run: Run) -> str:
    if not run.everything or run.task == "clip":
        return "Run this again with --missing --yes, until it says that nothing was missing."
    if run.task in KEPT:
        return "They keep what they had; run this again with --yes to try them once more."
    return f"They are not missing for Immich: {NOT_FOUND_BY_MISSING[run.task]}."


def duration(seconds: float) -> str:
    """Return a duration for people."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"
