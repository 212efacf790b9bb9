"""The process id of a child, in a file that other programs read."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from immich_triton.server import processes


class PidFile:
    """*path* holds the process id of the leader of a session whose command line contains the argument *mark*."""

    def __init__(self, path: Path, mark: str) -> None:
        self.path = path
        self._mark = mark.encode()

    def write(self, pid: int) -> None:
        """Write *pid*; a reader sees the old number or the new one."""
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(f"{pid}\n")
        fresh.replace(self.path)

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def end_predecessor(self, seconds: float) -> None:
        """Wait *seconds* for a process left behind by a supervisor that was killed, then kill it.

        Such a process was told to stop when its supervisor died, but may still be on its way out and hold the port.
        """
        try:
            pid = int(self.path.read_text())
        except (OSError, ValueError):
            return
        deadline = time.monotonic() + seconds
        while self._is_ours(pid):
            if time.monotonic() > deadline:
                kill_session(pid)
            time.sleep(0.1)
        self.remove()

    def _is_ours(self, pid: int) -> bool:
        # The kernel gives the number to somebody else one day, so look what it is. A zombie has no command line.
        try:
            return self._mark in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False


def kill_session(leader: int) -> None:
    """Kill all of the session that *leader* began, what outlived it and what made a process group of its own included.

    The group comes first: it is killed in one step, so that nothing in it can start something else meanwhile.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    for pid in processes.pids():
        if processes.session(pid) == leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
