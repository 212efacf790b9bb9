"""What pytest does for our tiers: which tests are slow, which share a worker, and which skips are failures.

Part of every run (`conftest.py`); the tiers are described in CONTRIBUTING.md.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any, Final

import pytest

TRITON: Final = "triton"
"""The group of tests that use a real Triton, one worker's: two servers at a time would wait for each other's cores,
and fixtures of the session exist once. Tests that start one of their own to stop, kill and break it, with models that
compute nothing, are marked as the group ``supervisor``: theirs mostly wait.
"""

_SHARED: Final = {"triton_server", "ocr_models", "face_models", "clip_standins"}
"""Fixtures that mean a Triton, or that take long to make."""

_FIRST: Final = (TRITON, "supervisor", "slow/", "process/")
_PACKAGE_IS_MISSING: Final = ("apt-get install", "could not import")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `.ci/run` uses where it installs packages itself."""
    parser.addoption(
        "--no-missing-packages",
        action="store_true",
        help="fail a test that is skipped because a package of Debian or Python is not installed",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, keep the tests of a file in one worker and those with a Triton in one, the longest first."""
    for item in items:
        if "slow" in item.path.parts:
            item.add_marker("slow")
    places: dict[str, int] = {}
    for item in items:
        folder = f"{item.path.parent.name}/"
        group = TRITON if not _SHARED.isdisjoint(getattr(item, "fixturenames", ())) else f"{folder}{item.path.stem}"
        if mark := item.get_closest_marker("xdist_group"):
            group = mark.args[0]
        else:
            item.add_marker(pytest.mark.xdist_group(group))
        places[item.nodeid] = next((i for i, first in enumerate(_FIRST) if group.startswith(first)), len(_FIRST))
    items.sort(key=lambda item: places[item.nodeid])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """Say how a worker that crashed ended: pytest-xdist knows only that it is gone."""
    if error:
        worker = node.gateway._io.popen
        told = f"worker {node.gateway.id} (process {worker.pid}) ended with exit code {worker.wait(10)}"
        sys.stdout.write(f"\n{told}\n")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skip for want of a package, where none may be missing."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and item.config.getoption("--no-missing-packages"):
        reason = report.longrepr[2]
        if any(words in reason for words in _PACKAGE_IS_MISSING):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and --no-missing-packages forbids that: {reason}"
    return report
