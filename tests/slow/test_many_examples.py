"""Generated requests, more than 100,000: 34 times as many as `make test` tries, other ones in every run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from places import PROJECT

EXAMPLES = int(os.environ.get("IMMICH_TRITON_EXAMPLES", "17000"))
"""Of each test."""

pytestmark = pytest.mark.timeout(max(1800, EXAMPLES))


def run(name: str) -> str:
    """Run a file of ``tests/process`` with so many examples; return what pytest printed. Fails when a test fails."""
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/process/{name}.py"]
    environment = {**os.environ, "IMMICH_TRITON_EXAMPLES": str(EXAMPLES), "PYTEST_ADDOPTS": ""}
    ended = subprocess.run(line, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    return ended.stdout


def test_bodies_entries_and_paths() -> None:
    counts = [int(number) for number in re.findall(r"^ *(\d+) examples: ", run("test_fuzz"), re.MULTILINE)]
    # One of them goes through sockets, with a tenth.
    assert sum(count >= EXAMPLES for count in counts) >= 5, counts
    assert min(counts) >= EXAMPLES // 10, counts


def test_what_stock_makes_of_them() -> None:
    assert " passed" in run("test_stock_oracle")
