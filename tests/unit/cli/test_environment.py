"""The environment that `setup` makes, and how a command goes on in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Never

import pytest

from immich_triton.cli import environment
from immich_triton.cli.environment import Needs
from immich_triton.core.paths import PACKAGE


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the user's folders and the lock files lie in a folder of the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("IMMICH_TRITON_ENVIRONMENT", raising=False)
    for name in ("LOCK", "GPU_LOCK", "WEB_LOCK"):
        monkeypatch.setattr(environment, name, tmp_path / name)
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


class EnteredError(Exception):
    """This interpreter would be another one now."""


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, list[str], dict[str, str]]]:
    """Give what was gone on in; the interpreter of the tests stays what it is."""
    calls: list[tuple[Path, list[str], dict[str, str]]] = []

    def become(python: Path, command: list[str], variables: dict[str, str]) -> Never:
        calls.append((python, command, variables))
        raise EnteredError

    monkeypatch.setattr(os, "execve", become)
    return calls


def lack(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(environment, "lacks", lambda _needs: list(names))


def test_each_lock_has_a_folder_of_its_own(home: Path) -> None:
    lock = home / "LOCK"
    first = environment.folder(lock)
    assert first.parent == home / "immich-triton"
    assert environment.folder(lock) == first
    lock.write_text("changed")
    assert environment.folder(lock) != first
    assert not first.exists()


def test_it_is_ready_when_it_was_installed_as_a_whole(tmp_path: Path) -> None:
    assert not environment.is_ready(tmp_path / "missing")
    assert not environment.is_ready(tmp_path)
    environment.mark_ready(tmp_path)
    assert environment.is_ready(tmp_path)


def test_what_is_here_is_not_lacking() -> None:
    assert environment.lacks(Needs.NOTHING) == []
    assert environment.lacks(Needs.TRITON) == []
    assert set(Needs.GATEWAY.value) < set(Needs.PICTURES.value)
    assert set(Needs.GATEWAY.value) < set(Needs.TRITON.value)
    assert environment.enter(Needs.TRITON, ["run"]) is None


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (["onnx"], "onnx is not installed; run: immich-triton setup"),
        (["onnx", "PIL"], "onnx, PIL are not installed; run: immich-triton setup"),
    ],
)
def test_without_an_environment_it_is_said_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], sentence: str
) -> None:
    lack(monkeypatch, *missing)
    assert environment.enter(Needs.TRITON, []) == sentence


def make_ready(home: Path, locks: str) -> Path:
    """Make an environment of *locks*, named as in ``LOCK+WEB_LOCK``, as `setup` would leave it."""
    folder = environment.folder(*(home / name for name in locks.split("+")))
    folder.mkdir(parents=True)
    environment.mark_ready(folder)
    return folder


def test_the_folder_of_several_locks_changes_with_any_of_them(home: Path) -> None:
    locks = home / "LOCK", home / "WEB_LOCK"
    folders = {environment.folder(*locks), environment.folder(locks[0])}
    for lock in locks:
        lock.write_text(f"another {lock.name}")
        folders.add(environment.folder(*locks))
    assert len(folders) == 4


@pytest.mark.parametrize(
    ("needs", "ready", "taken"),
    [
        (Needs.TRITON, ["LOCK"], "LOCK"),
        (Needs.TRITON, ["LOCK", "GPU_LOCK"], "GPU_LOCK"),
        (Needs.TRITON, ["LOCK", "LOCK+WEB_LOCK"], "LOCK"),
        (Needs.TRITON, ["LOCK+WEB_LOCK"], "LOCK+WEB_LOCK"),
        (Needs.TRITON, ["LOCK", "GPU_LOCK+WEB_LOCK"], "GPU_LOCK+WEB_LOCK"),
        (Needs.TRITON_AND_SITE, ["LOCK", "GPU_LOCK", "LOCK+WEB_LOCK"], "LOCK+WEB_LOCK"),
        (Needs.TRITON_AND_SITE, ["LOCK+WEB_LOCK", "GPU_LOCK+WEB_LOCK"], "GPU_LOCK+WEB_LOCK"),
    ],
)
def test_the_command_goes_on_in_one_that_is_ready(
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    entered: list[tuple[Path, list[str], dict[str, str]]],
    needs: Needs,
    ready: list[str],
    taken: str,
) -> None:
    lack(monkeypatch, "onnx")
    made = {locks: make_ready(home, locks) for locks in ready}
    with pytest.raises(EnteredError):
        environment.enter(needs, ["run", "--port", "1"])
    ((python, command, variables),) = entered
    assert python == made[taken] / "bin/python"
    assert command == [str(python), "-m", "immich_triton", "run", "--port", "1"]
    # In there it does not try again, whatever is missing.
    monkeypatch.setattr(os, "environ", variables)
    assert environment.enter(Needs.TRITON, []) == "onnx is not installed; run: immich-triton setup"
    assert len(entered) == 1


@pytest.mark.parametrize(("ready", "setup"), [("LOCK", "setup --web"), ("GPU_LOCK", "setup --gpu --web")])
def test_what_only_the_site_needs_is_installed_by_a_setup_of_its_own(
    monkeypatch: pytest.MonkeyPatch, home: Path, ready: str, setup: str
) -> None:
    lack(monkeypatch, "asyncpg")
    make_ready(home, ready)
    sentence = f"asyncpg is not installed; run: immich-triton {setup}"
    assert environment.enter(Needs.TRITON_AND_SITE, ["run", "--web", "http://immich"]) == sentence


def test_this_very_package_is_found_in_it(tmp_path: Path) -> None:
    packages = tmp_path / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    for _ in range(2):
        environment.link_package(tmp_path)
    assert [path.name for path in packages.iterdir()] == [PACKAGE.name]
    assert (packages / PACKAGE.name).resolve() == PACKAGE
