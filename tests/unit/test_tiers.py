"""What pytest does for our tiers, asked of pytest runs of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import PROJECT

SKIPS = """
import pytest

@pytest.mark.skipif(True, reason="no Chromium on this machine: apt-get install chromium")
def test_marked():
    pass

def test_in_its_body():
    pytest.skip("promtool is not installed; Debian and Ubuntu: apt-get install prometheus")

def test_imported():
    pytest.importorskip("no_such_package")

@pytest.fixture
def absent():
    pytest.skip("Debian fonts are not installed: apt-get install fonts-noto-cjk")

def test_with_a_fixture(absent):
    pass

def test_what_no_package_gives():
    pytest.skip("this machine has no IPv6 sockets that take IPv4 too")

@pytest.mark.xfail(reason="apt-get install cannot help", strict=True)
def test_expected():
    raise AssertionError

def test_passes():
    pass
"""

GROUPS = """
import pytest

@pytest.fixture(scope="session")
def triton_server():
    return None

def test_with(triton_server):
    pass

def test_beside():
    pass
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over *folder* with our plug-in and nothing else of ours."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: takes long\n")
    line = [sys.executable, "-m", "pytest", "-p", "tiers", "-p", "no:cacheprovider", *arguments, "."]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "tests"), "PYTEST_ADDOPTS": ""}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_skip_that_a_package_would_have_prevented_is_a_failure_on_demand(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPS)
    ended = run(tmp_path, "--no-missing-packages", *workers)
    assert ended.returncode == 1
    assert re.search("2 failed, 1 passed, 1 skipped, 1 xfailed,.* 2 errors", ended.stdout)
    for package in ("chromium", "prometheus", "fonts-noto-cjk", "no_such_package"):
        assert re.search(rf"was skipped, and --no-missing-packages forbids that: .*{package}", ended.stdout), package


def test_a_skip_is_no_failure_otherwise(tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPS)
    ended = run(tmp_path)
    assert ended.returncode == 0
    assert "1 passed, 5 skipped, 1 xfailed" in ended.stdout


SHOW = """
def pytest_collection_finish(session):
    for item in session.items:
        print("group", item.nodeid, *item.get_closest_marker("xdist_group").args)
"""


def groups(folder: Path, *arguments: str) -> list[str]:
    """Return the tests and their groups in the order in which they run."""
    (folder / "conftest.py").write_text(SHOW)
    ended = run(folder, "--collect-only", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return re.findall(r"^group (.*)$", ended.stdout, re.MULTILINE)


def test_one_worker_has_triton_and_the_long_ones_come_first(tmp_path: Path) -> None:
    plain = "def test_a():\n    pass\n"
    marked = f'import pytest\n\npytestmark = pytest.mark.xdist_group("triton")\n\n{plain}'
    texts = {"a/test_plain.py": plain, "process/test_server.py": plain, "slow/test_long.py": plain}
    texts |= {"unit/test_fixture.py": GROUPS, "process/test_marked.py": marked}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    fast = [
        "process/test_marked.py::test_a triton",
        "unit/test_fixture.py::test_with triton",
        "process/test_server.py::test_a process/test_server",
        "a/test_plain.py::test_a a/test_plain",
        "unit/test_fixture.py::test_beside unit/test_fixture",
    ]
    assert groups(tmp_path, "-m", "not slow") == fast
    assert groups(tmp_path) == [*fast[:2], "slow/test_long.py::test_a slow/test_long", *fast[2:]]


def test_a_group_stays_in_one_worker(tmp_path: Path) -> None:
    """With another version of pytest, pytest-xdist scatters groups in silence: it finds them by a private name."""
    (tmp_path / "test_many.py").write_text(
        "import os, pathlib, pytest\n\n\n@pytest.mark.parametrize('index', range(40))\ndef test_many(index):\n"
        "    pathlib.Path('ran').open('a').write(os.environ['PYTEST_XDIST_WORKER'] + '\\n')\n"
    )
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n")
    assert run(tmp_path, "-n", "2", "--dist", "loadgroup").returncode == 0
    workers = (tmp_path / "ran").read_text().split()
    assert (len(workers), len(set(workers))) == (40, 1)
