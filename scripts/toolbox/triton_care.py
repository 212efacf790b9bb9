"""What a running Triton does not do by itself: replace a model's dead process, notice new and changed models."""

from __future__ import annotations

import math
import queue
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from toolbox.triton_install import KEY_HEADER
from toolbox.triton_models import RepositoryWatch
from toolbox.triton_stubs import StubWatch

LOOK_SECONDS: Final = 1.0
REQUEST_SECONDS: Final = 1800.0
"""What loading one model may take: encoders of 4 GB, a slow disk. A server that hangs is ended by its supervisor."""
AGAIN_SECONDS: Final = (5.0, 10.0, 30.0, 60.0)
"""Pauses before a model is loaded again that could not be, after its process had died."""


@dataclass
class _Lost:
    """A model whose process died: how often it could not be loaded since, and when to try next (monotonic time)."""

    failures: int = 0
    due: float = math.inf

    def failed(self, now: float) -> float:
        """Plan the next attempt; returns the seconds until then."""
        pause = AGAIN_SECONDS[min(self.failures, len(AGAIN_SECONDS) - 1)]
        self.failures += 1
        self.due = now + pause
        return pause


class Caretaker:
    """Looks after one server from its first second; ``say`` gets a line for the terminal when something happens."""

    def __init__(
        self, stubs: StubWatch, repository: RepositoryWatch, control: ModelControl, say: Callable[[str], None]
    ) -> None:
        self._stubs = stubs
        self._repository = repository
        self._control = control
        self._say = say
        self._died: set[str] = set()
        self._lost: dict[str, _Lost] = {}
        self._next = 0.0

    def poll(self, healthy: Callable[[str], bool] | None) -> None:
        """Look, once a second when the server runs.

        *healthy* tells which models were loaded, None while the server is still starting. Only those are loaded again:
        one that crashes while it loads would do so for ever.
        """
        if healthy is None:
            # At every call: a stub has to be seen alive to know later whose it was.
            self._died |= self._stubs.died()
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        self._died |= self._stubs.died()
        for model in sorted(filter(healthy, self._died)):
            if self._control.ask(model, "unload", "load"):
                self._lost.setdefault(model, _Lost())
                self._say(f"a process of model {model} died (out of memory? see dmesg); loading the model again")
        self._died.clear()
        self._try_again(now)
        for model, action in sorted(self._repository.changes().items()):
            if self._control.ask(model, action):
                self._say(f"the files of model {model} {'changed' if action == 'load' else 'are gone'}; {action}ing it")

    def _try_again(self, now: float) -> None:
        """Load what was lost once more: a lack of memory that killed a process may last for a while."""
        for model, done in self._control.outcomes():
            if done:
                self._lost.pop(model, None)
            elif model in self._lost:
                pause = self._lost[model].failed(now)
                self._say(f"model {model} could not be loaded again; next attempt in {pause:g} s")
        for model, lost in self._lost.items():
            if now >= lost.due and self._control.ask(model, "load"):
                lost.due = math.inf

    def close(self) -> None:
        """Forget the server."""
        self._control.close()


class ModelControl:
    """Loads and unloads models one after the other, in the background: Triton answers when it is done, seconds later.

    Why a model could not be loaded is in Triton's log.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {KEY_HEADER: key} if key else {}
        self._pending: set[str] = set()
        self._work: queue.SimpleQueue[tuple[str, tuple[str, ...]] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="model control", daemon=True).start()

    def ask(self, model: str, *actions: str) -> bool:
        """Have *actions* (``load``, ``unload``) done to *model*; returns False when something is being done to it."""
        if model in self._pending:
            return False
        self._pending.add(model)
        self._work.put((model, actions))
        return True

    def outcomes(self) -> Iterator[tuple[str, bool]]:
        """Yield each model that something was done to since the last call, and whether all of it could be done."""
        while not self._done.empty():
            yield self._done.get()

    def close(self) -> None:
        """End the thread when it has done what it was asked."""
        self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            model, actions = item
            try:
                for action in actions:
                    self._request(f"{self._url}/v2/repository/models/{urllib.parse.quote(model, safe='')}/{action}")
                done = True
            except Exception:  # noqa: BLE001 - whatever it was, the thread has to be there for the next model
                done = False
            self._pending.discard(model)
            self._done.put((model, done))

    def _request(self, address: str) -> None:
        request = urllib.request.Request(address, data=b"{}", headers=self._headers, method="POST")
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS):
            pass
