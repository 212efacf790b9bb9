"""A few trials of ``scripts/lab/chaos.py``, with encoders of a few kilobytes; more: slow/test_faults.py.

What is expected of the other faults has tests of its own: test_ocr.py (a killed Triton), test_catchup_process.py (an
outage).
"""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest
import tiny_encoders


@pytest.mark.xdist_group("supervisor")  # with a server of its own, and little to compute
@pytest.mark.timeout(600)
def test_garbage_and_an_interruption_under_load(tmp_path: Path) -> None:
    tiny_encoders.repository(tmp_path / "models", pairs="a")
    options = ["--models", str(tmp_path / "models"), "--pace", "0.1", "--deadline", "15"]
    assert chaos.main(["garbage", "interrupt", *options]) == 0
