"""What Immich lost: marks of outages that survive a restart, and how often Immich may be asked to catch up.

Immich forgets a job whose machine-learning request failed: nothing retries it, nothing lists it. What a mark stands for
is therefore "photos of this task may be without a result since then": because requests failed, or, as a precaution,
because Immich was refused for a while (a restart).

A photo that makes Triton fail every time is missing again after each catch-up; without a growing pause the two would
play ping-pong for ever. Only that counts: a catch-up of requests that failed, after which the same task failed again.
A precaution has no part in it, neither as what went before nor by having to wait.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from immich_triton.core import state_file
from immich_triton.immich.api import QUEUES

VERSION: Final = 2

RUN: Final = secrets.token_hex(8)
"""This process; a reload of the script keeps it. No process id: in a container the next run has the same one."""

PAUSES: Final = (0.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds from one catch-up of a task to the next, by how many were in vain within a day."""

DAY: Final = 24 * 3600.0

LOCK_PATIENCE: Final = 0.2
"""Seconds to wait for another gateway that writes: the event loop, and with it every request, waits too."""


@dataclass
class State:
    """What the file holds; times are seconds since the epoch.

    ``marks``: since when a task is marked. ``failed``: since when requests of a marked task failed. ``at_once``: since
    when it is marked as a precaution. ``asked``: when Immich was asked to catch up on requests that failed.
    ``in_vain``: those of these times after which the task failed again. ``runs``: by port, the `RUN` of a gateway that
    runs, empty for one that ended in peace.

    Older versions wrote no ``failed``, ``at_once`` and ``in_vain``, and read a file that has them.
    """

    marks: dict[str, float] = field(default_factory=dict)
    asked: dict[str, list[float]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)
    at_once: dict[str, float] = field(default_factory=dict)
    in_vain: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Any) -> State:
        """Return what a file holds. Raises ValueError, LookupError, TypeError or AttributeError on any other file."""
        if raw["version"] != VERSION:
            raise ValueError(f"version {raw['version']}")
        return cls(
            _times(raw["marks"]),
            _lists(raw["asked"]),
            {str(port): str(run) for port, run in raw["runs"].items()},
            _times(raw.get("failed", {})),
            _times(raw.get("at_once", {})),
            _lists(raw.get("in_vain", {})),
        )

    def mark(self, task: str, now: float, failed: float | None) -> bool:
        """Mark a task, see `Outages.mark`; return whether that changes anything."""
        why = self.at_once if failed is None else self.failed
        is_new = task not in why
        self.marks.setdefault(task, now)
        why.setdefault(task, now)
        last, in_vain = self.asked.get(task, ())[-1:], self.in_vain.get(task, [])
        # A request that was sent before Immich was asked says nothing about what came of that.
        if failed is not None and last and failed >= last[0] and last[0] not in in_vain:
            self.in_vain[task] = _recent([*in_vain, last[0]])
            is_new = True
        return is_new

    def settle(self, task: str, asked: float | None) -> None:
        """Remove a mark, see `Outages.settle`."""
        if asked is not None and task in self.failed:
            self.asked[task] = _recent([*self.asked.get(task, ()), asked])
        for marks in (self.marks, self.failed, self.at_once):
            marks.pop(task, None)

    def owed(self, task: str) -> Owed:
        """Return what Immich is owed of a marked task."""
        since, vain = self.marks[task], _recent(self.in_vain.get(task, ()))
        due = since
        if vain and task not in self.at_once and (asked := self.asked.get(task)):
            due = max(since, asked[-1] + PAUSES[min(len(vain), len(PAUSES) - 1)])
        return Owed(task, since, due, len(vain), failed=task in self.failed)


def _times(raw: Any) -> dict[str, float]:
    return {str(task): float(when) for task, when in raw.items()}


def _lists(raw: Any) -> dict[str, list[float]]:
    return {str(task): [float(when) for when in times] for task, times in raw.items()}


def _recent(times: Iterable[float]) -> list[float]:
    begins = time.time() - DAY
    return [when for when in times if when > begins]


@dataclass(frozen=True)
class Owed:
    """That photos of *task* may be without a result since then. Times are seconds since the epoch.

    Immich may be asked from *due* on, after so many catch-ups *in_vain* within a day. *failed*: requests did fail; else
    it is a precaution.
    """

    task: str
    since: float
    due: float
    in_vain: int
    failed: bool


def when_asked(owed: Owed) -> str:
    """Return, for people, what is owed and when Immich is asked for it."""
    photos = f"photos sent since {moment(owed.since)} may be without a result"
    if owed.due <= time.time():
        return f"{photos}; Immich is asked to run them as soon as Triton is well"
    vain = "the last catch-up" if owed.in_vain == 1 else f"{owed.in_vain} catch-ups within a day"
    return f"{photos}; requests failed again after {vain}, so Immich is asked to run them at {moment(owed.due)}"


def by_hand(tasks: Iterable[str]) -> str:
    """Return what a person clicks to have what is missing run."""
    titles = ", ".join(QUEUES[task].title for task in tasks)
    return f"in Immich click Administration, Job Queues, Missing for {titles}"


def moment(when: float) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


class Outages:
    """``outages.json`` in the state directory. Several gateways may share it: every change reads it first.

    A file that cannot be read counts as empty, one that cannot be written raises OSError: photos are answered without.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "outages.json"

    def marks(self) -> dict[str, float]:
        """Return the marked tasks and since when."""
        return self._read().marks

    def owed(self) -> list[Owed]:
        """Return what stands behind the marks."""
        state = self._read()
        return [state.owed(task) for task in state.marks]

    def mark(self, tasks: tuple[str, ...], now: float | None = None, *, failed: float | None = None) -> None:
        """Mark tasks; a mark that is there stays as it is.

        *failed*: when the request that failed was sent; None for a precaution.
        """
        when = time.time() if now is None else now
        looked_at = self._read()
        if not any(looked_at.mark(task, when, failed) for task in tasks):
            return
        with self._change() as state:
            for task in tasks:
                state.mark(task, when, failed)

    def settle(self, task: str, since: float, *, asked: float | None = None) -> None:
        """Remove the mark that was set at *since*; remember when Immich was *asked*, if requests had failed."""
        with self._change() as state:
            if state.marks.get(task) == since:
                state.settle(task, asked)

    def begin(self, port: int, run: str = RUN) -> str | None:
        """Take note that the gateway on *port* runs.

        Returns what was noted before: None at the very first start, nothing after a clean stop, else the `RUN` of the
        process that ended without a word, or of this one.
        """
        with self._change() as state:
            before = state.runs.get(str(port))
            state.runs[str(port)] = run
        return before

    def end(self, port: int) -> None:
        """Take note that the gateway on *port* ends in peace."""
        with self._change() as state:
            state.runs[str(port)] = ""

    def _read(self) -> State:
        try:
            return State.parse(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return State()

    @contextlib.contextmanager
    def _change(self) -> Iterator[State]:
        with state_file.exclusive(self.path, patience=LOCK_PATIENCE):
            state = self._read()
            yield state
            state_file.replace(self.path, json.dumps({"version": VERSION, **vars(state)}, indent=2) + "\n")
