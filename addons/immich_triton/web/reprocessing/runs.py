"""What was ordered lately, and what became of it."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from immich_triton.web.account import RunResult
from immich_triton.web.reprocessing.tasks import Task

KEPT: Final = 24 * 3600.0
"""Seconds: a paused queue may be resumed the next day."""

MOST: Final = 20_000


@dataclass(frozen=True)
class Result:
    """How a run ended; *verified* says whether that was seen from what the run left.

    *message* is for a person, *reason* the same in a word, for who says it in another language (`menu.js`).
    """

    state: Literal["done", "failed"]
    verified: bool
    message: str = ""
    reason: Literal["", "no_text", "no_result", "unseen", "gone"] = ""

    def as_json(self) -> dict[str, str | bool]:
        """Return it as the site answers it."""
        answer: dict[str, str | bool] = {"state": self.state, "verified": self.verified, "message": self.message}
        return answer | {"reason": self.reason} if self.reason else answer


NEW_TEXT: Final = Result("done", verified=True)
NO_TEXT: Final = Result(
    "done",
    verified=False,
    message="no text before and none now; Immich does not show whether it looked",
    reason="no_text",
)
NO_ANSWER: Final = Result(
    "failed",
    verified=True,
    message="Immich ended the job without a result: is its machine learning up and on?",
    reason="no_result",
)
UNSEEN: Final = Result(
    "done", verified=False, message="Immich ended the job; its result could not be seen from here", reason="unseen"
)
GONE: Final = Result("failed", verified=True, message="the job was taken out of Immich's queue", reason="gone")

NEW_VECTOR: Final = Result("done", verified=True)


@dataclass
class Run:
    """One order. *before* is the `fingerprint` of the photo's text then, None when it could not be seen."""

    before: str | None = None
    result: Result | None = None

    def compare(self, after: str | None) -> Result:
        """Return how a run of the text recognition ended: Immich writes every line anew, with a new id."""
        if self.before is None or after is None:
            return UNSEEN
        if not self.before and not after:
            return NO_TEXT
        return NO_ANSWER if self.before == after else NEW_TEXT


def fingerprint(lines: Iterable[str]) -> str:
    """Return a short stand-in for the ids of a photo's lines of text; empty when it has none."""
    ids = "\n".join(sorted(lines))
    return hashlib.blake2b(ids.encode(), digest_size=16).hexdigest() if ids else ""


class Runs:
    """The last run of each task for each photo: at most *most*, the oldest go first; *clock* gives seconds.

    *told* hears of each that has ended.
    """

    def __init__(
        self,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
        *,
        told: Callable[[str, RunResult], None] = lambda _task, _result: None,
    ) -> None:
        self._most = most
        self._told = told
        self._clock = clock
        self._runs: OrderedDict[tuple[str, str], tuple[float, Run]] = OrderedDict()

    def put(self, task: Task, photo: str, run: Run) -> None:
        """Keep a run in the place of an older one."""
        key = task.name, photo
        self._runs.pop(key, None)
        while len(self._runs) >= self._most:
            self._runs.popitem(last=False)
        self._runs[key] = self._clock(), run

    def settle(self, task: Task, run: Run, result: Result) -> None:
        """Take note how a run ended."""
        run.result = result
        self._told(task.name, "failed" if result.state == "failed" else "verified" if result.verified else "unverified")

    def drop(self, task: Task, photos: Iterable[str]) -> None:
        """Forget runs that did not come about."""
        for photo in photos:
            self._runs.pop((task.name, photo), None)

    def get(self, task: Task, photo: str) -> Run | None:
        """Return the last run, unless it is too old."""
        began, run = self._runs.get((task.name, photo), (0.0, None))
        return run if run is not None and self._clock() - began <= KEPT else None
