"""What Immich lost: marks of outages that survive a restart, and how often Immich may be asked to catch up.

Immich forgets a job whose machine-learning request failed: nothing retries it, nothing lists it. What a mark stands for
is therefore "photos of this task may be without a result since then".
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from immich_triton.core import state_file

VERSION: Final = 2

RUN: Final = secrets.token_hex(8)
"""This process; a reload of the script keeps it. No process id: in a container the next run has the same one."""

PAUSES: Final = (0.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds from one catch-up of a task to the next, by how many there were within a day. A photo that makes Triton fail
every time is missing again after each catch-up; without a growing pause the two would play ping-pong for ever."""

DAY: Final = 24 * 3600.0

LOCK_PATIENCE: Final = 0.2
"""Seconds to wait for another gateway that writes: the event loop, and with it every request, waits too."""


@dataclass
class State:
    """What the file holds; times are seconds since the epoch.

    ``marks``: since when a task is marked. ``asked``: when Immich was asked to catch up on it. ``runs``: by port, the
    `RUN` of a gateway that runs, empty for one that ended in peace.
    """

    marks: dict[str, float] = field(default_factory=dict)
    asked: dict[str, list[float]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Any) -> State:
        """Return what a file holds. Raises ValueError, LookupError, TypeError or AttributeError on any other file."""
        if raw["version"] != VERSION:
            raise ValueError(f"version {raw['version']}")
        return cls(
            {str(task): float(when) for task, when in raw["marks"].items()},
            {str(task): [float(when) for when in times] for task, times in raw["asked"].items()},
            {str(port): str(run) for port, run in raw["runs"].items()},
        )


class Outages:
    """``outages.json`` in the state directory. Several gateways may share it: every change reads it first.

    A file that cannot be read counts as empty, one that cannot be written raises OSError: photos are answered without.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "outages.json"

    def marks(self) -> dict[str, float]:
        """Return the marked tasks and since when."""
        return self._read().marks

    def mark(self, tasks: tuple[str, ...], now: float | None = None) -> None:
        """Mark tasks; a mark that is there stays as it is."""
        if set(tasks) <= self.marks().keys():
            return
        with self._change() as state:
            for task in tasks:
                state.marks.setdefault(task, now or time.time())

    def due(self, task: str) -> float:
        """Return when Immich may be asked to catch up on *task* again, in seconds since the epoch."""
        asked = self._read().asked.get(task, [])
        recent = [when for when in asked if when > time.time() - DAY]
        return recent[-1] + PAUSES[min(len(recent), len(PAUSES) - 1)] if recent else 0.0

    def settle(self, task: str, since: float, *, asked: bool) -> None:
        """Remove the mark that was set at *since*; remember whether Immich was *asked*."""
        with self._change() as state:
            if state.marks.get(task) == since:
                del state.marks[task]
            if asked:
                now = time.time()
                state.asked[task] = [when for when in state.asked.get(task, []) if when > now - DAY] + [now]

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
