"""The limit on open files is raised as far as it may be; each case in a process of its own, since limits stay."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRY = """
import resource, sys
from immich_triton.proxy import open_files
soft, hard, needed = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(open_files.allow(needed), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "needed", "allowed"),
    [(256, 900, 500, 500), (256, 900, 2200, 900), (256, 900, 100, 256)],
    ids=["raised", "as far as the hard limit", "there is enough"],
)
def test_as_many_as_needed(soft: int, hard: int, needed: int, allowed: int) -> None:
    command = [sys.executable, "-c", TRY, str(soft), str(hard), str(needed)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [str(allowed)] * 2
