"""Processes that begin where the imports are done: a mitmdump starts in a third of the time, hundreds of times a run.

This file is also the program of the process that they are forked from. It imports mitmproxy and the packages that our
addons use, but nothing of ours, and lives as long as the test run.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

MAINS: Final = {"mitmdump": "mitmproxy.tools.dump", "mitmweb": "mitmproxy.tools.web.master"}
"""The programs, and what each imports when it starts."""

_PACKAGES: Final = ("numpy", "orjson", "prometheus_client", "python_multipart", "requests", "requests_toolbelt")
_CLIENTS: Final = ("aiohttp", "tritonclient.http.aio", "rich.console")
_PR_SET_PDEATHSIG: Final = 1


class WarmProcess:
    """A forked process; what `subprocess.Popen` has of it, with the same meaning."""

    def __init__(self, pid: int, source: _Source) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._source = source
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return the exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends and return its exit code. Raises `subprocess.TimeoutExpired`."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()  # select() takes no descriptors beyond 1023
            poll.register(self._handle, select.POLLIN)
            if poll.poll(None if timeout is None else 1000 * timeout):
                self.returncode = self._source.ask(ended=self.pid)
                os.close(self._handle)
        return self.returncode


class _Source:
    """The process that the others are forked from."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        # -P: nothing beside this file is to be found by an import. It ends with its standard input.
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        atexit.register(self._end)

    def _end(self) -> None:
        self._process.communicate()

    def ask(self, **question: Any) -> int:
        """Ask one thing and return the number that it answers."""
        with self._asking:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


@functools.cache
def _source() -> _Source:
    return _Source()


def can_run(program: str) -> bool:
    """Tell whether *program* can be started here: it is known, and Python is to find what it always does."""
    return program in MAINS and not {"PYTHONPATH", "PYTHONHOME"} & os.environ.keys()


def start(line: Sequence[str], environment: Mapping[str, str], log_file: Path) -> WarmProcess:
    """Start a command line of one of `MAINS` in the folder of *log_file*, which takes its output.

    It ends with the test run, however that ends.
    """
    log_file.touch()  # it may be read at once
    source = _source()
    pid = source.ask(words=[*line], environment={**environment}, log_file=str(log_file.resolve()))
    return WarmProcess(pid, source)


def main() -> None:
    """Fork on demand until the standard input ends; in a fork, run the program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: who asks us ends first
    for name in ("mitmproxy.tools.main", *MAINS.values(), *_PACKAGES, *_CLIENTS):
        importlib.import_module(name)
    program = _serve(sys.stdin.buffer)
    if program is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(program())


def _serve(questions: BinaryIO) -> Callable[[], int | None] | None:
    """Answer questions. Returns what a fork has to do, and None at the end."""
    me = os.getpid()
    for line in iter(questions.readline, b""):
        question = json.loads(line)
        if pid := question.get("ended"):
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        elif not (answer := os.fork()):
            _become(question, me)
            tools = importlib.import_module("mitmproxy.tools.main")
            return cast("Callable[[], int | None]", getattr(tools, Path(sys.argv[0]).name))
        sys.stdout.buffer.write(b"%d\n" % answer)
        sys.stdout.buffer.flush()
    return None


def _become(question: Mapping[str, Any], parent: int) -> None:
    """Take over what the new process was given: words, environment, folder and files."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    log_file = question["log_file"]
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *[(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)] * 2]
    ):
        file = os.open(path, flags, 0o644)
        os.dup2(file, number)
        os.close(file)
    os.chdir(Path(log_file).parent)
    os.environ.clear()
    os.environ.update(question["environment"])
    sys.argv = question["words"]


if __name__ == "__main__":
    main()
