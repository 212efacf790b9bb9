"""The gateways of the tests are forked from a process that has done its imports; otherwise they are like others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python
from places import PROJECT
from warm_python import WarmProcess

from harness.program import eventually


def start(directory: Path, *arguments: str) -> WarmProcess:
    line = [str(Path(sys.executable).parent / "mitmdump"), *arguments]
    return warm_python.start(line, {**os.environ, "SAID": "hello"}, directory / "log")


def test_it_has_its_own_words_environment_folder_and_output(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import os\nprint(os.environ['SAID'], os.getcwd(), os.getpid())\n")
    process = start(tmp_path, "-n", "-q", "--set", f"confdir={tmp_path}", "-s", "script.py")
    try:
        assert eventually(lambda: (tmp_path / "log").read_text() == f"hello {tmp_path} {process.pid}\n")
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
    finally:
        process.kill()
    assert process.wait(60) == -9
    assert process.poll() == -9
    process.kill()  # nobody, least of all who has the number now


def test_its_exit_code_arrives(tmp_path: Path) -> None:
    assert start(tmp_path, "--version").wait(60) == 0
    assert start(tmp_path, "--no-such-option").wait(60) == 1
    assert "unrecognized arguments: --no-such-option" in (tmp_path / "log").read_text()


def test_it_ends_with_the_run_of_the_tests(tmp_path: Path) -> None:
    code = (
        "import os, sys, time, warm_python\nfrom pathlib import Path\n"
        f"line = [{str(Path(sys.executable).parent / 'mitmdump')!r}, '-n', '--set', 'confdir={tmp_path}']\n"
        f"print(warm_python.start(line, os.environ, Path({str(tmp_path / 'log')!r})).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "tests")}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as run:
        assert run.stdout
        command_line = Path(f"/proc/{int(run.stdout.readline())}/cmdline")
        assert command_line.read_bytes()
        run.kill()

    def is_gone() -> bool:
        try:
            return not command_line.read_bytes()  # nobody has looked at its exit code yet
        except (FileNotFoundError, ProcessLookupError):
            return True

    assert eventually(is_gone)
