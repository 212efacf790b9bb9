"""The process id of a child, and the end of one that a killed supervisor left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import eventually
from immich_triton.server import processes
from immich_triton.server.pid_file import PidFile, kill_session

MARK = "--listen-port=3004"


@pytest.fixture
def file(tmp_path: Path) -> PidFile:
    return PidFile(tmp_path / "gateway.pid", MARK)


@pytest.fixture
def session() -> Iterator[int]:
    """Give a session: a process with the mark on its command line, and a child in a process group of its own."""
    code = "import subprocess; subprocess.Popen(['sleep', '600'], process_group=0).wait()"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code, MARK], start_new_session=True) as leader:
        assert eventually(lambda: len(processes.tree(leader.pid)) == 2)
        yield leader.pid
        kill_session(leader.pid)


def test_a_number_is_written_whole_and_removed(file: PidFile) -> None:
    file.remove()  # there is none yet
    for pid in (12, 345):
        file.write(pid)
        assert file.path.read_text() == f"{pid}\n"
    file.remove()
    assert list(file.path.parent.iterdir()) == []


def test_one_that_was_left_behind_is_killed_with_its_session(file: PidFile, session: int) -> None:
    members = processes.tree(session)
    assert len({os.getpgid(pid) for pid in members}) == 2
    file.write(session)
    file.end_predecessor(seconds=0)
    assert not file.path.exists()
    assert eventually(lambda: all(processes.state(pid) in (None, "Z") for pid in members))
    kill_session(session)  # it is over: that is no error


@pytest.mark.parametrize(("content", "stays"), [("", True), ("no number", True), ("0", False)])
def test_a_file_that_names_nobody_is_waited_for_by_nobody(file: PidFile, content: str, stays: bool) -> None:
    file.path.write_text(content)
    file.end_predecessor(seconds=600)
    assert file.path.exists() == stays


def test_a_number_that_somebody_else_has_by_now_is_left_alone(file: PidFile) -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as other:
        file.write(other.pid)
        file.end_predecessor(seconds=0)
        assert other.poll() is None
        assert not file.path.exists()
        other.kill()
    assert other.returncode == -signal.SIGKILL
