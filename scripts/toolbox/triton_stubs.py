"""The Python processes ("stubs") inside the embedded Triton.

When one is killed (out of memory) or crashes in native code, Triton goes on giving it its share of the requests and
each fails with "Stub process is not healthy", for ever (seen with 2.51). The model reports ready all the while. Only
unloading and loading it again helps; loading alone does nothing, since no file changed.
"""

from __future__ import annotations

import time
from pathlib import Path

PROC = Path("/proc")
LINGER_SECONDS = 1.0
"""A stub that ends in order is a zombie for a moment too, until Triton has waited for it."""


class StubWatch:
    """Finds models of the server *pid* whose stub died. The kernel tells: the server does not wait for such a child."""

    def __init__(self, pid: int, models: Path) -> None:
        self._server = PROC / str(pid)
        self._models = models
        self._model_of: dict[int, str] = {}
        self._zombies: dict[int, float] = {}

    def died(self) -> set[str]:
        """Return the models that lost a stub since the last call."""
        now = time.monotonic()
        zombies = [child for child in self._children() if self._is_zombie(child)]
        self._zombies = {pid: self._zombies.get(pid, now) for pid in zombies}
        lost = [pid for pid, since in self._zombies.items() if now - since >= LINGER_SECONDS and pid in self._model_of]
        return {self._model_of.pop(pid) for pid in lost}

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
