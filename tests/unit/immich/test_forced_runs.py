"""What is said of runs of *All* names a command that there is."""

from __future__ import annotations

import re

from immich_triton.cli.main import COMMANDS
from immich_triton.immich.api import QUEUES
from immich_triton.immich.forced_runs import NOT_FOUND_BY_MISSING


def test_each_task_whose_missing_goes_by_a_date_says_what_finds_such_photos() -> None:
    assert NOT_FOUND_BY_MISSING.keys() == QUEUES.keys() - {"clip"}
    for text in NOT_FOUND_BY_MISSING.values():
        (command,) = re.findall(r"immich-triton (\w+) --", text)
        assert command in COMMANDS
