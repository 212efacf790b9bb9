"""Freed memory is given back between bursts of work, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from harness.program import eventually
from immich_pipelines.trimming import Trimmer
from immich_triton.core.paths import PROJECT
from immich_triton.server import triton_install


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


def test_what_is_only_kept_is_freed_before_it_is_given_back() -> None:
    log: list[str] = []
    trimmer = Trimmer(lambda: log.append("give back"), quiet_seconds=0.01, release=lambda: log.append("release"))
    trimmer.worked()
    assert eventually(lambda: log == ["release", "give back"])
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


FREED_BY_THREADS = """
import threading
import numpy as np
from pathlib import Path
from immich_pipelines.trimming import trim

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024

def work():
    images = [np.ones(4 << 20, np.uint8) for _ in range(8)]
    together.wait()  # all are there
    together.wait()  # and have been counted

before = anonymous()
together = threading.Barrier(3)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
together.wait()
used = anonymous()
together.wait()
for thread in threads:
    thread.join()
trim()
print(used - before, anonymous() - before)
"""


def test_what_threads_have_freed_goes_back_too(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    ours = {name: value for name, value in triton_install.environment(tmp_path).items() if name.startswith("MALLOC_")}

    result = subprocess.run(
        [sys.executable, "-c", FREED_BY_THREADS],
        env={**environment, **ours, "PYTHONPATH": str(PROJECT / "triton_backends")},
        capture_output=True,
        text=True,
        check=True,
    )

    used, kept = map(int, result.stdout.split())
    assert used >= 64 << 20
    assert kept < used / 8
