"""What Immich lost is remembered over a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_triton.ml.outages import RUN, Outages


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
    mine.settle("ocr", 5.0, asked=True)
    assert other.marks() == {"clip": 6.0}
    assert other.due("ocr") > 0


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
