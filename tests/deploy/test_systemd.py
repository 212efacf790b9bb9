"""deploy/systemd: systemd takes the unit, and it stops and starts as the program needs it."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from places import PROJECT

from immich_triton.cli import main, run_options
from immich_triton.ml.settings import Settings

UNIT: Final = PROJECT / "deploy/systemd/immich-triton.service"
TEXT: Final = UNIT.read_text(encoding="utf-8")
CLONE: Final = "/opt/immich-triton"
HIGHEST_EXPOSURE: Final = 2.0
"""Of 10, by `systemd-analyze security`; a unit without hardening has 9.6."""


@pytest.fixture(scope="module")
def unit() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(TEXT)
    return {name: dict(section) for name, section in parser.items()}


def systemd_analyze() -> str:
    """Return the program, or skip the test and say what installs it."""
    if (found := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    return found


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "clone/.venv/bin/immich-triton"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(TEXT.replace(CLONE, str(tmp_path / "clone")))
    line = [systemd_analyze(), "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    # Of other units of this machine it speaks as well.
    assert (done.returncode, [line for line in said.splitlines() if UNIT.name in line]) == (0, []), said


def test_little_is_left_to_who_breaks_in() -> None:
    line = [systemd_analyze(), "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd cannot look at a unit without running it: {done.stderr.strip()[:100]}")
    assert float(found[1]) <= HIGHEST_EXPOSURE, done.stdout


def test_a_stop_takes_as_long_as_it_takes(unit: dict[str, dict[str, str]]) -> None:
    service = unit["Service"]
    assert service["KillMode"] == "mixed", "the supervisor alone gets the signal"
    assert int(service["TimeoutStopSec"]) > Settings().drain_timeout


def test_an_address_that_is_missing_at_boot_is_waited_for(unit: dict[str, dict[str, str]]) -> None:
    assert (unit["Service"]["Restart"], unit["Service"]["RestartSec"]) == ("on-failure", "5")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_it_starts_what_exists_and_writes_where_it_may(unit: dict[str, dict[str, str]]) -> None:
    service = unit["Service"]
    program, command, *arguments = shlex.split(service["ExecStart"])
    assert (program, command in main.COMMANDS) == (f"{CLONE}/.venv/bin/immich-triton", True)
    parsed = run_options.parse(arguments)
    assert parsed.models.is_relative_to(f"/var/lib/{service['StateDirectory']}")
    folders = dict(pair.split("=") for pair in service["Environment"].split())
    assert folders == {"XDG_STATE_HOME": "/var/lib", "XDG_DATA_HOME": "/var/lib", "XDG_CACHE_HOME": "/var/cache"}
    assert service["StateDirectory"] == service["CacheDirectory"] == "immich-triton", "the program's folder in them"
