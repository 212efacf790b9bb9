"""Loads and unloads models of a running Triton through its repository API."""

from __future__ import annotations

import itertools
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from immich_triton.core import loopback
from immich_triton.server.triton_log import short_reason
from immich_triton.triton import wire as triton_wire

REQUEST_SECONDS: Final = 1800.0
"""What loading one model may take: encoders of 4 GB, a slow disk. A server that hangs is ended by its supervisor."""

GAP_SECONDS: Final = 1.0
"""Between an unload and the load after it. A gateway looks five times a second, and tells by a model that was away that
its processes are new: a request over which the new ones die as well is poison."""

AT_A_TIME: Final = min(max(len(os.sched_getaffinity(0)), 2), 4)
"""Models that are loaded beside each other. On two cores two had all tasks ready as soon as Triton's own start of all
at once (29 s beside 33 s on a busy machine), and the first search answered after 4 s instead of 33 s."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request: *error* is empty when all of it could be done; *unloaded*: whether that part was.

    *actions* is what was asked.
    """

    model: str
    error: str
    unloaded: bool
    actions: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, order=True)
class _Task:
    rank: int
    number: int
    model: str
    actions: tuple[str, ...]


class ModelControl:
    """Does things to models in the background: Triton answers when it is done, seconds later. Order is kept.

    Why a model could not be loaded is in Triton's log in more detail. *config* gives the config (JSON) that a model is
    loaded with, None for that of its file; it is asked at each load.
    """

    def __init__(
        self, url: str, key: str, at_a_time: int = AT_A_TIME, config: Callable[[str], str | None] = lambda _model: None
    ) -> None:
        self._config = config
        self._url = url
        self._headers = triton_wire.key_headers(key)
        self._at_a_time = at_a_time
        self._pending: set[str] = set()
        self._numbers = itertools.count()
        self._work: queue.PriorityQueue[_Task] = queue.PriorityQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        for number in range(at_a_time):
            threading.Thread(target=self._run, name=f"model control {number}", daemon=True).start()

    def ask(self, model: str, *actions: str, urgent: bool = True) -> bool:
        """Have *actions* (``load``, ``unload``) done to *model*; return False when something is being done to it.

        What is *urgent* comes before everything that is not.
        """
        if model in self._pending:
            return False
        self._pending.add(model)
        self._work.put(_Task(0 if urgent else 1, next(self._numbers), model, actions))
        return True

    def is_busy(self, model: str) -> bool:
        """Tell whether something is being done to *model*."""
        return model in self._pending

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what was done since the last call."""
        while not self._done.empty():
            outcome = self._done.get()
            self._pending.discard(outcome.model)
            yield outcome

    def close(self) -> None:
        """End the threads when they have done what they were asked."""
        for _ in range(self._at_a_time):
            self._work.put(_Task(2, next(self._numbers), "", ()))

    def _run(self) -> None:
        while (task := self._work.get()).actions:
            done: list[str] = []
            error = ""
            try:
                for action in task.actions:
                    if done:
                        time.sleep(GAP_SECONDS)
                    self._request(task.model, action)
                    done.append(action)
            except Exception as problem:  # noqa: BLE001 - whatever it was, the thread has to be there for the next model
                error = _reason(problem)
            self._done.put(Outcome(task.model, error, unloaded="unload" in done, actions=task.actions))

    def _request(self, model: str, action: str) -> None:
        address = self._url + triton_wire.control(model, action)
        config = self._config(model) if action == "load" else None
        body = {"parameters": {"config": config}} if config else {}
        request = urllib.request.Request(address, json.dumps(body).encode(), self._headers, method="POST")
        with loopback.OPENER.open(request, timeout=REQUEST_SECONDS):
            pass


def _reason(problem: Exception) -> str:
    """Return why a request failed, in Triton's words where it has some; never empty."""
    if isinstance(problem, urllib.error.HTTPError):
        try:
            return short_reason(str(json.loads(problem.read(1 << 16))["error"]))
        except (OSError, ValueError, LookupError, TypeError):
            pass
    return str(problem) or repr(problem)
