"""A child that is told when its parent dies, by the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from harness.program import eventually
from immich_triton.core.paths import PACKAGE
from immich_triton.server import die_with_parent, processes

PYTHON = [sys.executable, "-I", "-S"]
PARENT = """
import signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
from immich_triton.server import die_with_parent
child = subprocess.Popen(die_with_parent.wrap(["sleep", "600"], signal.SIGKILL))
print(child.pid, flush=True)
child.wait()
"""


def test_the_command_becomes_itself_and_gets_its_arguments() -> None:
    command = die_with_parent.wrap(["sh", "-c", 'echo "$PPID $0 $1"', "a b", "c"])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{os.getpid()} a b c\n"


def test_a_child_does_not_outlive_a_parent_that_is_killed() -> None:
    with subprocess.Popen([*PYTHON, "-c", PARENT, str(PACKAGE.parent)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert eventually(lambda: processes.arguments(child) == ["sleep", "600"])
        parent.kill()
    assert parent.returncode == -signal.SIGKILL
    assert eventually(lambda: processes.state(child) in (None, "Z"))


def test_a_parent_that_was_gone_before_starts_nothing() -> None:
    *program, _parent, at_death = die_with_parent.wrap([])
    nobody = str(2**22 + 1)  # no process has a number above the highest (pid_max)
    done = subprocess.run([*program, nobody, at_death, "echo", "started"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
