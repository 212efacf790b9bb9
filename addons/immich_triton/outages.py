"""What Immich lost: marks of outages that survive a restart, and how often Immich may be asked to catch up.

Immich forgets a job whose machine-learning request failed: nothing retries it, nothing lists it. What a mark stands for
is therefore "photos of this task may be without a result since then".
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1

PAUSES: Final = (0.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds from one catch-up of a task to the next, by how many there were within a day. A photo that makes Triton fail
every time is missing again after each catch-up; without a growing pause the two would play ping-pong for ever."""

DAY: Final = 24 * 3600.0


@dataclass
class State:
    """What the file holds; times are seconds since the epoch.

    ``marks``: since when a task is marked. ``asked``: when Immich was asked to catch up on it. ``runs``: by port, the
    process id of a gateway that runs, 0 for one that ended in peace.
    """

    marks: dict[str, float] = field(default_factory=dict)
    asked: dict[str, list[float]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)


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
        state = self._read()
        new = {task: now or time.time() for task in tasks if task not in state.marks}
        if new:
            state.marks |= new
            self._write(state)

    def due(self, task: str) -> float:
        """Return when Immich may be asked to catch up on *task* again, in seconds since the epoch."""
        asked = self._read().asked.get(task, [])
        recent = [when for when in asked if when > time.time() - DAY]
        return recent[-1] + PAUSES[min(len(recent), len(PAUSES) - 1)] if recent else 0.0

    def settle(self, task: str, since: float, *, asked: bool) -> None:
        """Remove the mark that was set at *since*; remember whether Immich was *asked*."""
        state = self._read()
        if state.marks.get(task) == since:
            del state.marks[task]
        if asked:
            now = time.time()
            state.asked[task] = [when for when in state.asked.get(task, []) if when > now - DAY] + [now]
        self._write(state)

    def begin(self, port: int) -> int | None:
        """Take note that the gateway on *port* runs.

        Returns what was noted before: None at the very first start, 0 after a clean stop, else the id of the process
        that ended without a word, or of this one.
        """
        state = self._read()
        before = state.runs.get(str(port))
        state.runs[str(port)] = os.getpid()
        self._write(state)
        return before

    def end(self, port: int) -> None:
        """Take note that the gateway on *port* ends in peace."""
        state = self._read()
        state.runs[str(port)] = 0
        self._write(state)

    def _read(self) -> State:
        try:
            raw: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            if raw.pop("version") != VERSION:
                return State()
            return State(**raw)
        except (OSError, ValueError, KeyError, TypeError):
            return State()

    def _write(self, state: State) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".outages-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": VERSION, **vars(state)}, file, indent=2)
        Path(temporary).replace(self.path)
