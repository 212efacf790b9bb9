"""The Python processes ("stubs") inside the embedded Triton.

When one is killed (out of memory) or crashes in native code, Triton goes on giving it its share of the requests and
each fails with "Stub process is not healthy", for ever (seen with 2.51). The model reports ready all the while. Only
unloading and loading it again helps; loading alone does nothing, since no file changed.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")
SCAN_SECONDS = 1.0
RELOAD_SECONDS = 120.0


class StubWatch:
    """Heals models of the server *pid* whose stubs die. The kernel tells: the server does not wait for such a child.

    ``say`` gets one line for the terminal when something happens.
    """

    def __init__(self, pid: int, url: str, models: Path, say: Callable[[str], None]) -> None:
        self._server = PROC / str(pid)
        self._url = url
        self._models = models
        self._say = say
        self._model_of: dict[int, str] = {}
        self._suspects: set[int] = set()
        self._reloads: dict[str, _Reload] = {}
        self._next = 0.0

    def poll(self) -> bool:
        """Look, at most once a second. Returns False when a model could not be loaded again: restart the server."""
        if time.monotonic() < self._next:
            return True
        self._next = time.monotonic() + SCAN_SECONDS
        for model in self._died() - self._reloads.keys():
            self._say(f"a process of model {model} died (out of memory? see dmesg); loading the model again")
            self._reloads[model] = _Reload(self._url, model)
            self._reloads[model].start()
        for model in [model for model, reload in self._reloads.items() if not reload.is_alive()]:
            error = self._reloads.pop(model).error
            self._say(f"model {model} could not be loaded again: {error}" if error else f"model {model} is back")
            if error:
                return False
        return True

    def _died(self) -> set[str]:
        zombies = {child for child in self._children() if self._is_zombie(child)}
        # A stub that ends in order is a zombie for a moment too, until Triton has waited for it.
        died = {self._model_of.pop(pid) for pid in zombies & self._suspects if pid in self._model_of}
        self._suspects = zombies
        return died

    def _children(self) -> list[int]:
        children: list[int] = []
        for listing in self._server.glob("task/*/children"):
            try:
                children += [int(pid) for pid in listing.read_text().split()]
            except OSError:  # the thread is gone
                continue
        return children

    def _is_zombie(self, pid: int) -> bool:
        try:
            arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        if arguments == [b""]:  # only a zombie has none
            return True
        # triton_python_backend_stub <repository>/<model>/<version>/model.py ...
        path = Path(arguments[1].decode("utf-8", "surrogateescape")) if len(arguments) > 1 else Path()
        if path.is_relative_to(self._models):
            self._model_of[pid] = path.relative_to(self._models).parts[0]
        return False


class _Reload(threading.Thread):
    """Unloads a model and loads it again, in the background: Triton answers when it is loaded, seconds later."""

    def __init__(self, url: str, model: str) -> None:
        super().__init__(name=f"reload {model}", daemon=True)
        self.error = ""
        self._address = f"{url}/v2/repository/models/{model}"

    def run(self) -> None:
        try:
            for action in ("unload", "load"):
                request = urllib.request.Request(f"{self._address}/{action}", data=b"{}", method="POST")
                with urllib.request.urlopen(request, timeout=RELOAD_SECONDS):
                    pass
        except OSError as error:  # urllib's errors are among them
            self.error = str(error)
