"""The pool: one process for each Triton server, which hands images to a few others that decode them.

``python -m immich_pipelines.decoding.server LISTENER TRITON`` is started by the first pipeline, but is nobody's child:
whoever kills that pipeline's process with all that it started leaves the others their pool. It ends when the server has
gone, or when no pipeline has been connected for a while. It imports Pillow once and forks: a process that
died over an image is replaced in milliseconds, and shares the memory that it has not written to. It never decodes
anything itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from PIL import Image

from immich_pipelines.decoding import messages
from immich_pipelines.decoding.crew import Crew, Task
from immich_pipelines.decoding.messages import Job

LINGER_SECONDS: Final = 60.0
"""How long it waits for a pipeline that is loaded again, which can be slow on a busy machine."""
LOOK_SECONDS: Final = 1.0
NICENESS: Final = 10
"""That of the encoders of the index, behind a search query (0): the same whoever started the pool."""


class Server:
    """Listens at *door* and hands what is asked to its `Crew`."""

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._selector = selectors.DefaultSelector()
        self._crew = Crew(self._selector)
        self._wishes: dict[socket.socket, int] = {}
        self._needed = time.monotonic()
        self._selector.register(door, selectors.EVENT_READ, self._accept)

    def run(self, alive: Callable[[], bool]) -> None:
        """Serve until it is not *alive* any more, or nobody needs it."""
        while alive() and time.monotonic() - self._needed < LINGER_SECONDS:
            for key, _ in self._selector.select(LOOK_SECONDS):
                if key.fd in self._selector.get_map():  # an event before may have closed it
                    key.data()
            if self._wishes:
                self._needed = time.monotonic()
            self._crew.look_after()

    def _accept(self) -> None:
        client, _ = self._door.accept()
        try:
            messages.check_peer(client)
        except OSError:
            client.close()
            return
        self._selector.register(client, selectors.EVENT_READ, functools.partial(self._hear, client))

    def _hear(self, client: socket.socket) -> None:
        try:
            message, descriptors = messages.receive(client)
        except OSError:
            message, descriptors = None, []
        if message is None:
            self._selector.unregister(client)
            self._wishes.pop(client, None)
            client.close()
        elif "decoders" in message:
            self._wishes[client] = message["decoders"]
        else:
            self._selector.unregister(client)  # the answer is all that follows
            self._crew.add(Task(Job.of(message), descriptors[0], descriptors[1], client))
        self._crew.resize(max(self._wishes.values(), default=0))
        if message and "decoders" in message:
            with contextlib.suppress(OSError):
                messages.send(client, {"ready": True})


def main(arguments: list[str]) -> None:
    """Serve at the listening socket with the number LISTENER as long as process TRITON runs.

    The process itself ends as soon as the pool is ready to serve, which another one does: with exit code 0, or with
    another when it cannot.
    """
    listener, triton = map(int, arguments)
    _prepare()
    _detach()
    with socket.socket(fileno=listener) as door:
        Server(door).run(lambda: _is_running(triton))


def _prepare() -> None:
    # The starting process may have blocked signals, and a terminal's Ctrl-C is for Triton: this ends after it.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # it is nicer already, and only root may take that back
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("500")  # rather an image than a model, when memory is short
    Image.init()  # all of Pillow's modules, so that the processes share them
    with contextlib.suppress(ImportError):  # an older Pillow has none
        # One thread for an image: parallelism is that of the processes, and a thread's stack counts as memory.
        vars(importlib.import_module("PIL.AvifImagePlugin"))["DEFAULT_MAX_THREADS"] = 1


def _detach() -> None:
    """Go on in a process that is no descendant of the one that started us. It stays in Triton's session."""
    if os.fork():
        os._exit(0)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
