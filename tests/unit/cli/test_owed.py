"""What doctor says of photos that are owed a result."""

from __future__ import annotations

import time
from pathlib import Path

from immich_triton.cli import owed
from immich_triton.ml.outages import PAUSES, Outages, moment


def test_who_never_had_a_gateway_is_told_nothing(tmp_path: Path) -> None:
    assert list(owed.findings(tmp_path)) == []


def test_nothing_owed_is_well(tmp_path: Path) -> None:
    outages = Outages(tmp_path)
    outages.mark(("ocr",), 5.0)
    outages.settle("ocr", 5.0)
    (finding,) = owed.findings(tmp_path)
    assert (finding.level, finding.text) == ("ok", "no photo waits for a catch-up")


def test_what_is_owed_and_when_and_what_helps_at_once(tmp_path: Path) -> None:
    outages, now = Outages(tmp_path), time.time()
    outages.mark(("ocr",), now - 50, failed=now - 50)
    outages.settle("ocr", now - 50, asked=now - 40)
    outages.mark(("ocr",), now - 30, failed=now - 30)
    outages.mark(("clip",), now - 20)
    late, of_all, soon = owed.findings(tmp_path)
    assert late.level == soon.level == "warning"
    assert late.text.startswith(
        f"OCR: photos sent since {moment(now - 30)} may be without a result; requests failed ag"
    )
    assert late.text.endswith(f"at {moment(now - 40 + PAUSES[1])}")
    assert late.fix.startswith("at once: in Immich click Administration, Job Queues, Missing for OCR")
    assert "immich-triton reprocess --lost" in of_all.text
    assert soon.text.startswith("Smart Search: ")
    assert "as soon as Triton is well" in soon.text
