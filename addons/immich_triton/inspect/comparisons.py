"""Ask two machine-learning services the same questions and gather how their answers differ."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import requests
from rich.table import Table

from immich_triton.core import timing
from immich_triton.immich.ml_client import Answer, cause, entries_for, predict, shown
from immich_triton.inspect import previews
from immich_triton.inspect.comparing import Comparison, NotComparableError, compare

KEYS: Mapping[str, str] = {"ocr": "ocr", "faces": "facial-recognition", "clip": "clip"}
"""The task's name in an answer, by its name on the command line."""

MOST_THUMBNAILS: Final = 200
"""Pictures in one report; a browser still opens it (about 20 MB)."""


@dataclass(frozen=True)
class Outcome:
    """What both sides said to one task about one image; exactly one of ``comparison`` and ``error`` is set.

    The bodies of the answers are without what no report shows, such as embeddings.
    """

    task: str
    ours: Answer | None
    theirs: Answer | None
    comparison: Comparison | None = None
    error: str = ""


@dataclass(frozen=True)
class Picture:
    """One photo with the outcomes of all tasks; ``thumbnail`` is a small JPEG of it, empty when there is none."""

    path: Path
    thumbnail: bytes
    outcomes: tuple[Outcome, ...]

    @property
    def same(self) -> bool:
        """Whether both sides agree about everything."""
        return all(outcome.comparison is not None and outcome.comparison.same for outcome in self.outcomes)

    @property
    def likeness(self) -> float:
        """The lowest likeness of its tasks; below all others when something failed."""
        return min(
            (outcome.comparison.likeness if outcome.comparison else -2.0 for outcome in self.outcomes), default=-2
        )

    @property
    def compared_likeness(self) -> float:
        """The lowest likeness of the tasks that could be compared; above all others when none could."""
        return min((outcome.comparison.likeness for outcome in self.outcomes if outcome.comparison), default=math.inf)


class Album:
    """Photos as they are compared. Those that differ most keep their thumbnails: so a whole library fits in memory."""

    def __init__(self, most: int = MOST_THUMBNAILS) -> None:
        self.pictures: list[Picture] = []
        self.left_out = 0
        self._most = most
        self._kept: list[tuple[float, int]] = []  # a heap, the first to go first: likeness and index, both negative

    def add(self, picture: Picture) -> None:
        """Take one more photo."""
        if picture.thumbnail:
            heapq.heappush(self._kept, (-picture.compared_likeness, -len(self.pictures)))
        self.pictures.append(picture)
        if len(self._kept) > self._most:
            _, index = heapq.heappop(self._kept)
            self.pictures[-index] = replace(self.pictures[-index], thumbnail=b"")
            self.left_out += 1


def ask_both(
    files: Iterable[Path], tasks: Sequence[str], ours: str, theirs: str, models: Mapping[str, str | None]
) -> Iterator[Picture]:
    """Yield the picture of each file. One request at a time, and each side goes first every other time."""
    for number, path in enumerate(files):
        try:
            image = previews.preview(path)
        except Exception as error:  # noqa: BLE001 - over a file of a stranger Pillow raises anything
            reason = f"cannot be read: {error} ({type(error).__name__})"
            yield Picture(path, b"", (Outcome("", None, None, error=reason),))
            continue
        outcomes = []
        for task in tasks:
            entries = entries_for(task, models.get(task))
            sides = (ours, theirs) if number % 2 == 0 else (theirs, ours)
            answers = {url: _ask(url, entries, image) for url in sides}
            outcomes.append(_outcome(task, answers[ours], answers[theirs]))
        yield Picture(path, previews.thumbnail(image), tuple(outcomes))


def _ask(url: str, entries: Mapping[str, Any], image: bytes) -> Answer | str:
    try:
        return predict(url, entries, image=image)
    except requests.RequestException as error:
        return f"{shown(url)} did not answer: {cause(error)}"


def _outcome(task: str, ours: Answer | str, theirs: Answer | str) -> Outcome:
    if isinstance(ours, str) or isinstance(theirs, str):
        text = "; ".join(side for side in (ours, theirs) if isinstance(side, str))
        return Outcome(task, None, None, error=text)
    comparison, error = None, _failure(ours, theirs)
    if not error:
        try:
            comparison = compare(KEYS[task], ours.body, theirs.body)
        except NotComparableError as problem:
            error = str(problem)
    light_ours, light_theirs = (replace(side, body=_light(side.body, comparison)) for side in (ours, theirs))
    return Outcome(task, light_ours, light_theirs, comparison, error)


def _failure(ours: Answer, theirs: Answer) -> str:
    """Return why there is nothing to compare, or nothing."""
    failed = [
        f"{who} answered {answer.status}: {_reason(answer.body)}"
        for who, answer in (("Triton", ours), ("stock", theirs))
        if answer.status != 200
    ]
    if not failed and not by_triton(ours):
        failed = [
            "Triton was away, and the stock ML answered in its place (immich_fallback_tasks)"
            if timing.who_answered(ours.headers) == "fallback"
            else "not answered by Triton: it passed through to the stock ML"
        ]
    return "; ".join(failed)


def by_triton(answer: Answer) -> bool:
    """Return whether Triton gave the gateway's answer, which says so; what passes through is the upstream's own."""
    return timing.who_answered(answer.headers) == "triton"


def _light(body: Any, comparison: Comparison | None) -> Any:
    """Return what a report shows of an answer that was compared; of many photos the rest would fill the memory."""
    if comparison is None:
        return None
    if comparison.task == "facial-recognition":
        faces = [{key: face[key] for key in ("boundingBox", "score")} for face in body[comparison.task]]
        return {**body, comparison.task: faces}
    return {**body, comparison.task: None} if comparison.task == "clip" else body


def _reason(body: object) -> object:
    return body.get("detail", body) if isinstance(body, dict) else body


def not_routed(pictures: Iterable[Picture]) -> list[str]:
    """Return the tasks of which Triton answered none, but the stock ML all."""
    answered: dict[str, bool] = {}
    for picture in pictures:
        for outcome in picture.outcomes:
            if outcome.ours and outcome.ours.status == 200:
                answered[outcome.task] = answered.get(outcome.task, False) or by_triton(outcome.ours)
    return [task for task, triton in answered.items() if not triton]


@dataclass(frozen=True)
class Summary:
    """All outcomes of one task together. Times are medians in seconds; the first picture warms both sides up."""

    task: str
    images: int
    same: int
    failed: int
    both: int
    only_ours: int
    only_theirs: int
    likeness: float
    overlap: float
    seconds: float
    stock_seconds: float

    @property
    def compared(self) -> int:
        """Images that could be compared."""
        return self.images - self.failed


def summarise(task: str, pictures: Sequence[Picture]) -> Summary:
    """Return the summary of a task."""
    outcomes = [outcome for picture in pictures for outcome in picture.outcomes if outcome.task == task]
    found = [outcome.comparison for outcome in outcomes if outcome.comparison]
    timed = [outcome for outcome in outcomes if outcome.comparison]
    timed = timed[1:] or timed
    return Summary(
        task=task,
        images=len(outcomes),
        same=sum(comparison.same for comparison in found),
        failed=len(outcomes) - len(found),
        both=sum(len(comparison.pairs) for comparison in found),
        only_ours=sum(len(comparison.only_ours) for comparison in found),
        only_theirs=sum(len(comparison.only_theirs) for comparison in found),
        likeness=_mean(comparison.likeness for comparison in found),
        overlap=_mean(pair.overlap for comparison in found for pair in comparison.pairs),
        seconds=median([outcome.ours.seconds for outcome in timed if outcome.ours] or [0.0]),
        stock_seconds=median([outcome.theirs.seconds for outcome in timed if outcome.theirs] or [0.0]),
    )


NOTHING: Final = "–"
"""Stands for a mean of nothing."""


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return fmean(listed) if listed else 1.0


COLUMNS: Sequence[tuple[str, Callable[[Summary], str]]] = (
    ("task", lambda summary: summary.task),
    ("images", lambda summary: str(summary.images)),
    ("same", lambda summary: str(summary.same)),
    ("failed", lambda summary: str(summary.failed)),
    ("found by both", lambda summary: str(summary.both)),
    ("Triton only", lambda summary: str(summary.only_ours)),
    ("stock only", lambda summary: str(summary.only_theirs)),
    ("likeness", lambda summary: f"{summary.likeness:.3f}" if summary.compared else NOTHING),
    ("box IoU", lambda summary: f"{summary.overlap:.3f}" if summary.compared else NOTHING),
    ("Triton", lambda summary: f"{1000 * summary.seconds:.0f} ms" if summary.compared else NOTHING),
    ("stock", lambda summary: f"{1000 * summary.stock_seconds:.0f} ms" if summary.compared else NOTHING),
)
"""Of the summary table, on the terminal and in the report."""


def table(summaries: Sequence[Summary]) -> Table:
    """Return the summary for the terminal, a column for each task."""
    result = Table("", *(summary.task for summary in summaries))
    for title, show in COLUMNS[1:]:
        result.add_row(title, *(show(summary) for summary in summaries))
    return result
