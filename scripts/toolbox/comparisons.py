"""Ask two machine-learning services the same questions and gather how their answers differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import requests
from rich.table import Table

from immich_triton.comparing import Comparison, NotComparableError, compare
from toolbox import previews
from toolbox.client import Answer, entries_for, predict

KEYS: Mapping[str, str] = {"ocr": "ocr", "faces": "facial-recognition", "clip": "clip"}
"""The task's name in an answer, by its name on the command line."""


@dataclass(frozen=True)
class Outcome:
    """What both sides said to one task about one image; exactly one of ``comparison`` and ``error`` is set."""

    task: str
    ours: Answer | None
    theirs: Answer | None
    comparison: Comparison | None = None
    error: str = ""


@dataclass(frozen=True)
class Picture:
    """One photo with the outcomes of all tasks; ``preview`` is what both sides saw, empty when there is none."""

    path: Path
    preview: bytes
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


def ask_both(
    files: Iterable[Path], tasks: Sequence[str], ours: str, theirs: str, models: Mapping[str, str | None]
) -> Iterator[Picture]:
    """Yield the picture of each file. One request at a time, and each side goes first every other time."""
    for number, path in enumerate(files):
        try:
            image = previews.preview(path)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises over broken files
            yield Picture(path, b"", (Outcome("", None, None, error=f"cannot be read: {error}"),))
            continue
        outcomes = []
        for task in tasks:
            entries = entries_for(task, models.get(task))
            sides = (ours, theirs) if number % 2 == 0 else (theirs, ours)
            answers = {url: _ask(url, entries, image) for url in sides}
            outcomes.append(_outcome(task, answers[ours], answers[theirs]))
        yield Picture(path, image, tuple(outcomes))


def _ask(url: str, entries: Mapping[str, Any], image: bytes) -> Answer | str:
    try:
        return predict(url, entries, image=image)
    except requests.RequestException as error:
        return f"{url} did not answer: {error}"


def _outcome(task: str, ours: Answer | str, theirs: Answer | str) -> Outcome:
    if isinstance(ours, str) or isinstance(theirs, str):
        text = "; ".join(side for side in (ours, theirs) if isinstance(side, str))
        return Outcome(task, None, None, error=text)
    failed = [
        f"{who} answered {answer.status}: {_reason(answer.body)}"
        for who, answer in (("Triton", ours), ("stock", theirs))
        if answer.status != 200
    ]
    if failed:
        return Outcome(task, ours, theirs, error="; ".join(failed))
    try:
        return Outcome(task, ours, theirs, compare(KEYS[task], ours.body, theirs.body))
    except NotComparableError as error:
        return Outcome(task, ours, theirs, error=str(error))


def _reason(body: object) -> object:
    return body.get("detail", body) if isinstance(body, dict) else body


def not_routed(pictures: Iterable[Picture]) -> list[str]:
    """Return the tasks to which only the stock ML answered, on both sides: then nothing was compared."""
    by_triton: dict[str, bool] = {}
    for picture in pictures:
        for outcome in picture.outcomes:
            if outcome.ours and outcome.ours.status == 200:
                told = "triton;" in outcome.ours.headers.get("Server-Timing", "")
                by_triton[outcome.task] = by_triton.get(outcome.task, False) or told
    return [task for task, answered in by_triton.items() if not answered]


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
    ("likeness", lambda summary: f"{summary.likeness:.3f}"),
    ("box IoU", lambda summary: f"{summary.overlap:.3f}"),
    ("Triton", lambda summary: f"{1000 * summary.seconds:.0f} ms"),
    ("stock", lambda summary: f"{1000 * summary.stock_seconds:.0f} ms"),
)
"""Of the summary table, on the terminal and in the report."""


def table(summaries: Sequence[Summary]) -> Table:
    """Return the summary for the terminal, a column for each task."""
    result = Table("", *(summary.task for summary in summaries))
    for title, show in COLUMNS[1:]:
        result.add_row(title, *(show(summary) for summary in summaries))
    return result
