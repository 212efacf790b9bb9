"""Freed memory is given back between bursts of work, and only then."""

from __future__ import annotations

import threading

from harness.program import eventually
from immich_pipelines.trimming import Trimmer


class Counted:
    """A trim that counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_memory_is_given_back_once_after_each_burst() -> None:
    trim = Counted()
    trimmer = Trimmer(trim, quiet_seconds=0.01)
    for burst in (1, 2, 3):
        for _ in range(100):
            trimmer.worked()
        assert eventually(lambda wanted=burst: trim.count >= wanted)  # type: ignore[misc]
        settled = trim.count
        assert not eventually(lambda seen=settled: trim.count > seen, 0.2), "nobody worked since"  # type: ignore[misc]
    trimmer.close()


def test_nothing_is_given_back_while_requests_come() -> None:
    trim = Counted()
    trimmer = Trimmer(trim, quiet_seconds=3600)
    for _ in range(1000):
        trimmer.worked()
    trimmer.close()
    assert trim.count == 0


def test_one_that_never_worked_ends_and_leaves_no_thread() -> None:
    before = threading.active_count()
    trimmer = Trimmer(quiet_seconds=0)
    trimmer.close()
    assert threading.active_count() == before


def test_the_c_library_takes_memory_back() -> None:
    trimmer = Trimmer(quiet_seconds=0)
    trimmer.worked()
    trimmer.close()
