"""Which smart-search jobs made a vector, by the order of events in two queues."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from immich_triton.web.reprocessing import vectors as module
from immich_triton.web.reprocessing.vectors import Vectors, Verdict


def told(vectors: Vectors, events: str) -> dict[str, Verdict]:
    """Take events: ``+a`` job a begins, ``-a`` it ends, ``=a`` duplicates are sought after it, ``=?`` after one."""
    decided: dict[str, Verdict] = {}
    for event in events.split():
        kind, job = event[0], event[1:]
        if kind == "+":
            vectors.began(job)
        else:
            for other, verdict in vectors.sought(None if job == "?" else job) if kind == "=" else vectors.ended(job):
                assert other not in decided, "a verdict is final"
                decided[other] = verdict
    return decided


@pytest.mark.parametrize(
    ("events", "verdicts"),
    [
        ("+a =a -a", {"a": "made"}),
        ("+a -a", {"a": "failed"}),
        ("+a =? -a", {"a": "made"}),
        # Two at the same time: told apart by the photo, or by counting.
        ("+a +b =b -a -b", {"a": "failed", "b": "made"}),
        ("+a +b =? =? -a -b", {"a": "made", "b": "made"}),
        ("+a +b =? -a =? -b", {"a": "made", "b": "made"}),
        ("+a +b =? =b -a -b", {"a": "made", "b": "made"}),
        ("+a +b =? -a =b -b", {"a": "made", "b": "made"}),
        ("+a +b -a =? -b", {"a": "failed", "b": "made"}),
        ("+a +b =? -a -b", {"a": "unknown", "b": "unknown"}),
        # A row of them, each beside the next.
        ("+a +b =? -a +c =? -b +d =? -c =? -d", {"a": "made", "b": "made", "c": "made", "d": "made"}),
        ("+a +b =? -a +c =? -b -c", {"a": "unknown", "b": "unknown", "c": "unknown"}),
        # What was not known is forgotten when nothing runs any more.
        ("+a +b =? -a -b +c =? -c", {"a": "unknown", "b": "unknown", "c": "made"}),
        # A search for a photo of which no job is known proves nothing.
        ("+a =x -a", {"a": "failed"}),
        # A job that stalled begins again.
        ("+a =a +a -a", {"a": "failed"}),
        ("-a", {"a": "unknown"}),
    ],
)
def test_what_is_told(events: str, verdicts: dict[str, Verdict]) -> None:
    assert told(Vectors(), events) == verdicts


def test_a_job_that_ran_before_it_was_watched_counts_as_another() -> None:
    assert told(Vectors(running=["o"]), "+a =? -a -o") == {"a": "unknown", "o": "unknown"}
    assert told(Vectors(running=["o"]), "+a =? -a =? -o") == {"a": "made", "o": "made"}


def test_a_job_is_known_as_soon_as_all_that_run_beside_it_are() -> None:
    assert told(Vectors(), "+a +b =? -a =b") == {"a": "made"}


def test_not_more_than_so_many_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    assert told(Vectors(), "+a +b =? -a +c =? -b =? =? -c +d =? -d") == {
        **dict.fromkeys("ab", "unknown"),
        "c": "unknown",
        "d": "made",
    }


def history(dice: random.Random) -> Iterator[tuple[str, str, bool]]:
    """Yield ``began``, ``sought`` or ``ended``, a job of which four run at a time, and whether it makes a vector."""
    running: dict[str, bool] = {}
    waiting = [str(number) for number in range(30)]
    while waiting or running:
        if waiting and len(running) < 4 and dice.random() < 0.6:
            job = waiting.pop()
            running[job] = dice.random() < 0.8
            yield "began", job, running[job]
        elif running:
            job = dice.choice([*running])
            makes = running.pop(job)
            if makes:
                yield "sought", job, makes
            if dice.random() < 0.5 and waiting and len(running) < 3:  # something comes between
                other = waiting.pop()
                running[other] = dice.random() < 0.8
                yield "began", other, running[other]
            yield "ended", job, makes


@pytest.mark.parametrize("seed", range(200))
def test_it_is_never_wrong_and_always_says_something(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - nothing secret
    vectors = Vectors()
    truth: dict[str, bool] = {}
    decided: dict[str, Verdict] = {}
    for kind, job, makes in history(dice):
        truth[job] = makes
        if kind == "began":
            vectors.began(job)
        else:
            known = job if dice.random() < 0.5 else None
            decided |= dict(vectors.sought(known) if kind == "sought" else vectors.ended(job))
    assert decided.keys() == truth.keys()
    wrong = [job for job, verdict in decided.items() if verdict not in ("made" if truth[job] else "failed", "unknown")]
    assert wrong == []
