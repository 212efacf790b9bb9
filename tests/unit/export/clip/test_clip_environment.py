"""The environment that exports CLIP: how it is made, and what runs in it; a real one: test_export_clip.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from immich_triton.core.paths import PACKAGE, PROJECT
from immich_triton.export.clip import environment
from immich_triton.export.clip.environment import EnvironmentSetupError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let cache and lock file lie in a folder of the test's own, and no interpreter be named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EXPORT_PYTHON", raising=False)
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text("torch\n")
    return tmp_path


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_changed_lock_makes_another_one(cache: Path) -> None:
    first = environment.folder()
    assert first.parent == cache / "immich-triton"
    assert first.name.startswith("export-")
    (cache / "lock").write_text("torch, newer\n")
    assert environment.folder() != first


def test_without_an_interpreter_of_the_right_version_it_says_how_to_get_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.setenv("EXPORT_PYTHON", str(program(cache / "wrong", "exit 1")))
    with pytest.raises(EnvironmentSetupError, match=r"(?s)no Python 3\.11 found.*EXPORT_PYTHON=/path/to/python3\.11"):
        environment.ensure()
    assert not environment.folder().exists()


PYTHON = """
case "$*" in
    *"import sys, venv"*) exit 0 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"pip"*"install"*) echo "$*" >> "$LOG"; exit "$PIP_EXIT" ;;
    *) echo "$PYTHONPATH $VIRTUAL_ENV $*" >> "$LOG" ;;
esac
"""
"""Stands for a Python 3.11: makes environments that hold a copy of itself, and writes down what it is asked to do."""


@pytest.fixture
def log(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name such an interpreter, and give the file that it writes to."""
    monkeypatch.setenv("EXPORT_PYTHON", str(program(cache / "python3.11", PYTHON)))
    monkeypatch.setenv("LOG", str(cache / "log"))
    monkeypatch.setenv("PIP_EXIT", "0")
    return cache / "log"


def test_it_is_made_once_and_from_the_lock_alone(cache: Path, log: Path) -> None:
    python = environment.ensure()
    assert python == environment.folder() / "bin/python"
    (asked,) = log.read_text().splitlines()
    assert asked.endswith(f"install --no-cache-dir --no-deps --require-hashes -r {cache / 'lock'}")
    assert environment.ensure() == python
    assert len(log.read_text().splitlines()) == 1


def test_one_that_could_not_be_made_is_not_there(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXIT", "1")
    with pytest.raises(EnvironmentSetupError, match="could not be made: Command"):
        environment.ensure()
    assert not environment.folder().exists()
    monkeypatch.setenv("PIP_EXIT", "0")
    assert environment.ensure().exists()


def test_our_package_and_the_pipelines_are_found_in_it_and_nothing_of_ours_else(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/of/the/gateway")
    environment.run("a.module", "one", "two")
    path = os.pathsep.join([str(PACKAGE.parent), str(PROJECT / "triton_backends")])
    assert log.read_text().splitlines()[-1] == f"{path}  -m a.module one two"


def test_what_fails_in_it_is_an_error(log: Path) -> None:
    program(environment.ensure(), "exit 3")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        environment.run("a.module")
    assert caught.value.returncode == 3


def test_one_that_is_made_is_used_where_nothing_can_be_written(
    cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = environment.ensure()

    def refused(*_arguments: object) -> None:
        raise PermissionError("Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)  # as root a folder's rights would not do
    assert environment.ensure() == made
