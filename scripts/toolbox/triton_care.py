"""What a running Triton does not do by itself: replace a model's dead process, notice new and changed models."""

from __future__ import annotations

import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from toolbox.triton_install import KEY_HEADER
from toolbox.triton_models import RepositoryWatch
from toolbox.triton_stubs import StubWatch

LOOK_SECONDS = 1.0
REQUEST_SECONDS = 120.0


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
        self._next = 0.0

    def poll(self, healthy: Callable[[str], bool] | None) -> bool:
        """Look, once a second when it runs. Returns False when the server does not answer and should be started again.

        *healthy* tells which models were loaded, None while the server is still starting. Only those are loaded again:
        one that crashes while it loads would do so for ever.
        """
        if healthy is None:
            # At every call: a stub has to be seen alive to know later whose it was.
            self._died |= self._stubs.died()
            return True
        if time.monotonic() < self._next:
            return True
        self._next = time.monotonic() + LOOK_SECONDS
        self._died |= self._stubs.died()
        for model in sorted(filter(healthy, self._died)):
            if self._control.ask(model, "unload", "load"):
                self._say(f"a process of model {model} died (out of memory? see dmesg); loading the model again")
        self._died.clear()
        for model, action in sorted(self._repository.changes().items()):
            if self._control.ask(model, action):
                self._say(f"the files of model {model} {'changed' if action == 'load' else 'are gone'}; {action}ing it")
        if self._control.failure:
            self._say(f"Triton does not answer: {self._control.failure}")
            return False
        return True

    def close(self) -> None:
        """Forget the server."""
        self._control.close()


class ModelControl:
    """Loads and unloads models one after the other, in the background: Triton answers when it is done, seconds later.

    Why a model could not be loaded is in Triton's log. ``failure`` is set when the server itself did not answer.
    """

    def __init__(self, url: str, key: str) -> None:
        self.failure = ""
        self._url = url
        self._headers = {KEY_HEADER: key} if key else {}
        self._pending: set[str] = set()
        self._work: queue.SimpleQueue[tuple[str, tuple[str, ...]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="model control", daemon=True).start()

    def ask(self, model: str, *actions: str) -> bool:
        """Have *actions* (``load``, ``unload``) done to *model*; returns False when something is being done to it."""
        if model in self._pending:
            return False
        self._pending.add(model)
        self._work.put((model, actions))
        return True

    def close(self) -> None:
        """End the thread when it has done what it was asked."""
        self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            model, actions = item
            try:
                for action in actions:
                    self._request(f"{self._url}/v2/repository/models/{model}/{action}")
            except urllib.error.HTTPError:
                pass
            except OSError as error:
                self.failure = str(error)
            self._pending.discard(model)

    def _request(self, address: str) -> None:
        request = urllib.request.Request(address, data=b"{}", headers=self._headers, method="POST")
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS):
            pass
