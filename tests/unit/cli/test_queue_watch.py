"""What is said while a queue of Immich runs, and when it is empty."""

from __future__ import annotations

import pytest
from rich.console import Console

from immich_triton.cli.queue_watch import Run, Seen, duration, patiently, tell
from immich_triton.cli.tally import Counts
from immich_triton.immich.api import ImmichError

ALL = Run("clip", everything=True, photos=100)
MISSING = Run("clip", everything=False, photos=100)


@pytest.mark.parametrize(
    ("run", "seen", "progress"),
    [
        (ALL, Seen(most=1, left=1), (0, 100)),
        (ALL, Seen(most=80, left=50), (30, 100)),
        (ALL, Seen(most=80, left=50, counts=Counts(40, 5)), (45, 100)),
        # Photos that are uploaded meanwhile are counted too.
        (ALL, Seen(most=80, left=1, counts=Counts(120)), (100, 100)),
        (MISSING, Seen(most=1, left=1), (0, None)),
        (MISSING, Seen(most=1, left=1, counts=Counts(3)), (3, None)),
        (MISSING, Seen(most=9, left=4), (5, 9)),
        (MISSING, Seen(most=9, left=4, counts=Counts(7, 1)), (8, 12)),
    ],
)
def test_progress_is_of_photos(run: Run, seen: Seen, progress: tuple[int, int | None]) -> None:
    assert seen.progress(run) == progress


@pytest.mark.parametrize(
    ("run", "counts", "code"),
    [
        (ALL, Counts(100), 0),
        (ALL, Counts(99, 1), 1),
        (ALL, Counts(), 1),
        (ALL, None, 0),
        (MISSING, Counts(), 0),
        (MISSING, Counts(0, 1), 1),
    ],
)
def test_the_exit_code_is_1_when_photos_are_known_to_be_without_a_result(
    run: Run, counts: Counts | None, code: int
) -> None:
    console = Console(width=20, record=True)
    assert tell(run, Seen(seconds=90, counts=counts), "nobody [counts]", console) == code
    text = console.export_text()
    assert text.startswith("The queue is empty after 2 min.\n")
    assert ("nobody [counts]" in text) == (counts is None)


def test_a_look_may_fail_nine_times() -> None:
    left = 9

    def look() -> int:
        nonlocal left
        if left:
            left -= 1
            raise ImmichError("502")
        return 7

    assert patiently(look, 0) == 7
    left = 10
    with pytest.raises(ImmichError, match="502"):
        patiently(look, 0)


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 60, 3599, 5400)] == ["0 s", "59 s", "1 min", "60 min", "1.5 h"]
