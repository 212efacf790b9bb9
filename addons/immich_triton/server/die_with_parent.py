"""Run a command that ends when its parent does: ``python die_with_parent.py PARENT_PID SIGNAL COMMAND…``.

A supervisor that is killed with SIGKILL cannot stop its children, and a child in a session of its own does not hear
the terminal either. Linux can tell the child (``prctl(2)``, ``PR_SET_PDEATHSIG``), and that survives ``exec``. A small
program of its own rather than a ``preexec_fn``, which may deadlock in a program with threads. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def wrap(command: Sequence[str], at_death: signal.Signals = signal.SIGTERM) -> list[str]:
    """Return *command* such that it gets *at_death* when the **thread** that starts it ends."""
    program = str(Path(__file__).resolve())
    return [sys.executable, "-I", "-S", program, str(os.getpid()), str(int(at_death)), *command]


def main(arguments: Sequence[str]) -> None:
    """Ask for the signal, then become the command."""
    parent, at_death, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(at_death), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):  # it died before we asked
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the purpose of this program


if __name__ == "__main__":
    main(sys.argv[1:])
