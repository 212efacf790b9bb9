"""The command ``immich-triton``: its table of subcommands, and the environment that it goes on in."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from places import PROJECT

from immich_triton import __version__
from immich_triton.cli import environment, main
from immich_triton.core.command import COMMAND
from immich_triton.core.command import environment as with_package

HEAVY = ("mitmproxy", "numpy", "orjson", "requests", "rich", "tritonclient", "onnx", "aiohttp")


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_a_program_and_a_line_in_the_help(name: str) -> None:
    assert callable(importlib.import_module(f"immich_triton.cli.{main.COMMANDS[name].module}").main)
    assert f"  {name} " in main.help_text()


def test_the_help_imports_nothing_that_a_command_needs() -> None:
    code = f"""
import sys
from immich_triton.cli.main import main
assert main(["--help"]) == 0
assert not (found := set({HEAVY}) & set(sys.modules)), found
"""
    done = subprocess.run([sys.executable, "-c", code], env=with_package(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"immich-triton {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["run", "--port", "1"], ("run", ["--port", "1"])),
        (["export", "ocr", "--gpu"], ("export ocr", ["--gpu"])),
        (["export"], (None, ["export"])),
        (["export", "all"], (None, ["export", "all"])),
        (["nonsense"], (None, ["nonsense"])),
    ],
)
def test_a_command_has_one_word_or_two(arguments: list[str], found: tuple[str | None, list[str]]) -> None:
    assert main.find(arguments) == found


def test_no_command_and_one_that_does_not_exist_show_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    assert "export clip" in capsys.readouterr().out
    assert main.main(["exprot", "ocr"]) == 2
    said = capsys.readouterr().err
    assert "there is no command 'exprot ocr'" in said
    assert "export clip" in said


def test_a_program_calls_itself_by_its_command() -> None:
    done = subprocess.run([*COMMAND, "export", "ocr", "--help"], env=with_package(), capture_output=True, check=True)
    assert done.stdout.startswith(b"usage: immich-triton export ocr ")


def test_the_files_for_a_clone_say_the_same() -> None:
    for task in ("ocr", "clip", "faces"):
        line = [sys.executable, str(PROJECT / f"scripts/export_{task}.py"), "--help"]
        done = subprocess.run(line, capture_output=True, check=True)
        assert done.stdout.startswith(f"usage: immich-triton export {task} ".encode())


def test_the_old_program_runs_the_command_and_says_so() -> None:
    done = subprocess.run(
        [sys.executable, str(PROJECT / "scripts/run.py"), "--web", "--web-port=1", "--upstream", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "is immich-triton run now" in done.stderr
    assert "--upstream must look like http://127.0.0.1:3003" in done.stderr
    assert done.returncode == 1


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let this interpreter lack what the commands need; returns the user's folder for data."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("IMMICH_TRITON_ENVIRONMENT", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pytriton" else name)
    return tmp_path


def test_what_is_lacking_is_said_with_what_to_do(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run"]) == 2
    assert capsys.readouterr().err == "immich-triton run: pytriton is not installed; run: immich-triton setup\n"


@pytest.mark.parametrize("arguments", [["--web", "http://immich"], ["--port", "1", "--web=http://immich"]])
def test_with_the_site_it_is_said_which_setup_installs_that(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("IMMICH_TRITON_ENVIRONMENT", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("redis", "rjieba") else name)
    assert main.main(["run", *arguments]) == 2
    said = "immich-triton run: redis, rjieba are not installed; run: immich-triton setup --web\n"
    assert capsys.readouterr().err == said


def test_with_an_environment_the_command_goes_on_in_it(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = environment.folder()
    made.mkdir(parents=True)
    environment.mark_ready(made)
    went_on: list[list[str]] = []

    def execve(_path: object, line: Sequence[str], variables: dict[str, str]) -> None:
        went_on.append(list(line))
        monkeypatch.setenv("IMMICH_TRITON_ENVIRONMENT", variables["IMMICH_TRITON_ENVIRONMENT"])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(SystemExit):
        main.main(["export", "ocr", "--gpu"])
    assert went_on == [[str(made / "bin/python"), "-m", "immich_triton", "export", "ocr", "--gpu"]]
    assert main.main(["export", "ocr", "--gpu"]) == 2  # in there something lacks too: no second time
    assert made.parent == bare / "immich-triton"
