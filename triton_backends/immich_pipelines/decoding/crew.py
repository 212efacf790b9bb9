"""The processes that decode: who is free, who works on what, and what became of those that died."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from immich_pipelines.decoding import messages, worker
from immich_pipelines.decoding.messages import BAD_INPUT, FAULT, KILLED, Job

SMALLEST: Final = 2
"""One for heavy images, one for the others."""
WALL_SECONDS: Final = 60.0
"""An image that took so long did not get the CPU, or its process is stopped: its time is bounded in CPU seconds, so
that a busy machine refuses no photo."""
PAUSE_SECONDS: Final = 1.0
"""Before the next attempt when a process could not be started, or died before it had anything to do."""


@dataclass(eq=False)
class Task:
    """A job, the descriptors of its file and of that for the pixels, and who waits for the answer."""

    job: Job
    image: int
    pixels: int
    client: socket.socket

    def close(self) -> None:
        """Let go of all three."""
        os.close(self.image)
        os.close(self.pixels)
        self.client.close()

    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        try:
            return not self.client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fail(self, kind: str, reason: str) -> None:
        """Answer that it could not be done."""
        with contextlib.suppress(OSError):
            messages.send(self.client, {"kind": kind, "error": reason})


@dataclass(eq=False)
class _Worker:
    pid: int
    link: socket.socket
    task: Task | None = None
    began: float = 0.0
    leaving: bool = False
    """It had a heavy image and ends by itself."""


def choose(waiting: Sequence[Task], heavy_at_work: int, size: int) -> Task | None:
    """Return whose turn it is: the first, but heavy images get at most half of *size* processes at a time."""
    full = heavy_at_work >= max(1, size // 2)
    return next((task for task in waiting if not (full and task.job.scan.heavy)), None)


class Crew:
    """A number of processes, see `resize`; their news come by way of *selector*."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._size = 0
        self._workers: list[_Worker] = []
        self._waiting: list[Task] = []
        self._next_start = 0.0

    def resize(self, size: int) -> None:
        """Have *size* processes, at least two; none for 0. Those that are too many end when they are free."""
        self._size = max(size, SMALLEST) if size else 0
        self._work()

    def add(self, task: Task) -> None:
        """Decode an image, as soon as it is its turn."""
        self._waiting.append(task)
        self._work()

    def look_after(self) -> None:
        """Do what no event tells; to be called every second or so."""
        late = time.monotonic() - WALL_SECONDS
        for member in self._workers:
            if member.task and member.began < late:
                os.kill(member.pid, signal.SIGKILL)
        self._work()

    def _work(self) -> None:
        self._fill()
        for member in [member for member in self._workers if not member.task and not member.leaving]:
            task = self._next()
            if task is None:
                return
            member.task, member.began = task, time.monotonic()
            with contextlib.suppress(OSError):  # it has died: its hanging up is heard next
                messages.send(member.link, task.job.message(), [task.image, task.pixels, task.client.fileno()])

    def _next(self) -> Task | None:
        """Take the task whose turn it is from those that wait; those whose clients have gone are dropped on the way."""
        heavy = sum(member.task is not None and member.task.job.scan.heavy for member in self._workers)
        while task := choose(self._waiting, heavy, self._size):
            self._waiting.remove(task)
            if not task.is_abandoned():
                return task
            task.close()
        return None

    def _fill(self) -> None:
        while len(self._workers) < self._size and time.monotonic() >= self._next_start:
            try:
                self._start()
            except OSError as error:
                _log(f"a process could not be started: {error}")
                self._next_start = time.monotonic() + PAUSE_SECONDS
        idle = [member for member in self._workers if not member.task and not member.leaving]
        for member in idle[: max(len(self._workers) - self._size, 0)]:
            member.leaving = True
            member.link.shutdown(socket.SHUT_WR)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not pid:
            _become_worker(theirs, parent)
        theirs.close()
        member = _Worker(pid, ours)
        self._workers.append(member)
        self._selector.register(ours, selectors.EVENT_READ, functools.partial(self._hear, member))

    def _hear(self, member: _Worker) -> None:
        try:
            news = member.link.recv(16)
        except OSError:
            news = b""
        task, member.task = member.task, None
        if not news:
            self._bury(member, task)
        elif task:
            member.leaving = task.job.scan.heavy
        if task:
            task.close()
        self._work()

    def _bury(self, member: _Worker, task: Task | None) -> None:
        self._selector.unregister(member.link)
        member.link.close()
        self._workers.remove(member)
        _, status = os.waitpid(member.pid, 0)
        if task:
            kind, reason = _cause(os.waitstatus_to_exitcode(status), task.job)
            _log(f"process {member.pid} is replaced: {reason}")
            task.fail(kind, reason)
        elif not member.leaving:
            self._next_start = time.monotonic() + PAUSE_SECONDS


def _cause(code: int, job: Job) -> tuple[str, str]:
    """Return the kind of failure and its description, for a process that ended with *code* over *job*."""
    what = f"{job.scan.format} of {job.scan.width}x{job.scan.height} pixels"
    if code == -signal.SIGPROF:
        seconds = worker.cpu_seconds(job)
        return BAD_INPUT, f"the image ({what}) takes more than the {seconds:.1f} s of CPU time that its size allows"
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        # Lack of memory: the kernel's choice says nothing about the image, and its own memory is bounded.
        return KILLED, f"the process that decoded the image ({what}) was killed (out of memory? see dmesg)"
    if code < 0:
        return BAD_INPUT, f"the image ({what}) cannot be decoded: the decoder crashed ({signal.Signals(-code).name})"
    return FAULT, f"the process that decoded the image ({what}) ended with exit code {code}; see Triton's log"


def _become_worker(pool: socket.socket, parent: int) -> None:
    code = 1
    try:
        # Whatever else is open belongs to others: a socket that stays open here would never be heard to hang up.
        os.closerange(3, pool.fileno())
        os.closerange(pool.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        worker.main(pool, parent)
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may get back into the pool's own code
        traceback.print_exc()
    finally:
        os._exit(code)


def _log(text: str) -> None:
    """Write a line to Triton's log."""
    sys.stderr.write(f"decoding: {text}\n")
    sys.stderr.flush()
