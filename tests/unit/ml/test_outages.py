"""What Immich lost is remembered over a restart."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from immich_triton.ml.outages import DAY, PAUSES, RUN, Outages, by_hand, moment, when_asked


def test_the_state_tells_a_clean_stop_from_an_unclean_one(tmp_path: Path) -> None:
    outages = Outages(tmp_path)
    assert outages.begin(3004) is None
    assert outages.begin(3005) is None
    assert outages.begin(3004) == RUN  # a reload of the script
    outages.end(3004)
    assert outages.begin(3004) == ""


def test_a_run_is_told_from_the_one_before_that_had_the_same_process_id(tmp_path: Path) -> None:
    outages = Outages(tmp_path)
    outages.begin(3004, run="the container before")
    assert outages.begin(3004) == "the container before" != RUN


def test_gateways_that_share_the_state_do_not_undo_each_other(tmp_path: Path) -> None:
    mine, other = Outages(tmp_path), Outages(tmp_path)
    mine.mark(("ocr",), now=5.0)
    other.mark(("clip",), now=6.0)
    mine.settle("ocr", 5.0, asked=10.0)
    assert other.marks() == {"clip": 6.0}


def due(outages: Outages, task: str = "ocr") -> float:
    """Return the seconds from the mark until Immich may be asked."""
    (owed,) = (one for one in outages.owed() if one.task == task)
    return round(owed.due - owed.since, 2)


def catch_up(outages: Outages, at: float, task: str = "ocr") -> None:
    """Have Immich asked at that time."""
    outages.settle(task, outages.marks()[task], asked=at)


@pytest.fixture
def now() -> float:
    return time.time() - 100


def test_a_restart_makes_nobody_wait(tmp_path: Path, now: float) -> None:
    outages = Outages(tmp_path)
    for restart in range(5):
        outages.mark(("ocr", "clip"), now + restart)
        assert due(outages) == 0
        catch_up(outages, now + restart)
    outages.mark(("ocr",), now + 10, failed=now + 9)
    assert due(outages) == 0, "the photos of the next outage are the first that failed"
    catch_up(outages, now + 11)
    outages.mark(("ocr",), now + 20, failed=now + 19)
    assert due(outages) == PAUSES[1] - 9, "it failed again"
    outages.mark(("ocr",), now + 30)
    assert due(outages) == 0, "what a restart may have cost has nothing to do with it"


def test_the_pause_grows_with_the_catch_ups_that_were_in_vain(tmp_path: Path, now: float) -> None:
    outages = Outages(tmp_path)
    for count in range(7):
        outages.mark(("ocr",), now + count, failed=now + count)
        (owed,) = outages.owed()
        assert (owed.in_vain, owed.failed) == (count, True)
        assert due(outages) == (PAUSES[min(count, 4)] - 0.5 if count else 0)
        outages.mark(("ocr",), now + count, failed=now + count)  # a second photo of the same outage counts no more
        assert outages.owed() == [owed]
        catch_up(outages, now + count + 0.5)


def test_another_task_has_its_own_count(tmp_path: Path, now: float) -> None:
    outages = Outages(tmp_path)
    outages.mark(("ocr",), now, failed=now)
    catch_up(outages, now + 1)
    outages.mark(("clip", "ocr"), now + 2, failed=now + 2)
    assert [one.in_vain for one in outages.owed()] == [0, 1]
    assert due(outages, "clip") == 0


def test_a_request_from_before_the_catch_up_says_nothing_about_it(tmp_path: Path, now: float) -> None:
    outages = Outages(tmp_path)
    outages.mark(("ocr",), now, failed=now)
    catch_up(outages, now + 10)
    outages.mark(("ocr",), now + 11, failed=now + 9)
    assert due(outages) == 0
    outages.mark(("ocr",), now + 12, failed=now + 11)
    assert due(outages) == PAUSES[1] - 1


def test_a_day_later_it_is_forgotten(tmp_path: Path) -> None:
    outages, then = Outages(tmp_path), time.time() - DAY - 100
    for count in range(3):
        outages.mark(("ocr",), then + 10 * count, failed=then + 10 * count)
        catch_up(outages, then + 10 * count + 1)
    outages.mark(("ocr",), time.time(), failed=time.time())
    assert due(outages) == 0


def test_the_file_of_an_older_version_keeps_its_marks_and_an_older_version_reads_ours(tmp_path: Path) -> None:
    outages = Outages(tmp_path)
    asked = time.time() - 60  # of a restart, as likely as not: nothing tells
    old = {"version": 2, "marks": {"ocr": 5.0}, "asked": {"ocr": [asked]}, "runs": {"3004": ""}}
    outages.path.write_text(json.dumps(old))
    assert outages.marks() == {"ocr": 5.0}
    assert due(outages) == 0
    outages.mark(("clip",), now=6.0, failed=6.0)
    ours = json.loads(outages.path.read_text())
    assert ours == old | {
        "marks": {"ocr": 5.0, "clip": 6.0},
        "failed": {"clip": 6.0},
        "at_once": {},
        "in_vain": {},
    }


def test_people_are_told_what_is_owed_and_when(tmp_path: Path, now: float) -> None:
    outages = Outages(tmp_path)
    outages.mark(("ocr",), now, failed=now)
    assert "Immich is asked to run them as soon as Triton is well" in when_asked(outages.owed()[0])
    for count in range(1, 3):
        catch_up(outages, now + count)
        outages.mark(("ocr",), now + count, failed=now + count)
    said = when_asked(outages.owed()[0])
    assert said.startswith(
        f"photos sent since {moment(now + 2)} may be without a result; requests failed again after 2 "
    )
    assert said.endswith(f"Immich is asked to run them at {moment(now + 2 + PAUSES[2])}")
    assert by_hand(["ocr", "clip"]) == "in Immich click Administration, Job Queues, Missing for OCR, Smart Search"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 2}',
        '{"version": 1, "other": 1}',
        '{"version": 2, "marks": [], "asked": {}, "runs": {}}',
        '{"version": 2, "marks": {"ocr": "x"}, "asked": {}, "runs": {}}',
        '{"version": 2, "marks": {}, "asked": {"ocr": 3}, "runs": {}}',
        '{"version": 2, "marks": {"clip": 3}, "asked": {}, "runs": {}, "failed": []}',
        '{"version": 2, "marks": {"clip": 3}, "asked": {}, "runs": {}, "in_vain": {"ocr": "x"}}',
        "\x00\xff",
        "[" * 100_000,
    ],
)
def test_a_damaged_state_counts_as_none(tmp_path: Path, content: str) -> None:
    outages = Outages(tmp_path)
    outages.path.write_text(content, encoding="latin-1")
    assert outages.marks() == {}
    outages.mark(("ocr",), now=5.0)
    assert outages.marks() == {"ocr": 5.0}
