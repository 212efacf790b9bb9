"""The Python processes ("stubs") inside the embedded Triton.

When one is killed (out of memory) or crashes in native code, Triton goes on giving it its share of the requests and
each fails with "Stub process is not healthy", for ever (seen with 2.51). The model reports ready all the while. Only
unloading and loading it again helps; loading alone does nothing, since no file changed.
"""

from __future__ import annotations

import time
from pathlib import Path

from toolbox import processes

LINGER_SECONDS = 1.0
"""A stub that ends in order is a zombie for a moment too, until Triton has waited for it."""


class StubWatch:
    """Finds models of the server *pid* whose stub died. The kernel tells: the server does not wait for such a child.

    A look costs a few milliseconds, since only processes that are new are asked for their parent. (The server's own
    ``task/*/children`` would be the direct way, and took 0.1 s for the 659 threads of a Triton with all tasks.)
    """

    def __init__(self, pid: int, models: Path) -> None:
        self._server = pid
        self._models = models
        self._known: set[int] = set()
        self._children: set[int] = set()
        self._model_of: dict[int, str] = {}
        self._zombies: dict[int, float] = {}

    def died(self) -> set[str]:
        """Return the models that lost a stub since the last call."""
        now = time.monotonic()
        self._look_around()
        zombies = [child for child in self._children if self._is_zombie(child)]
        self._zombies = {pid: self._zombies.get(pid, now) for pid in zombies}
        lost = [pid for pid, since in self._zombies.items() if now - since >= LINGER_SECONDS and pid in self._model_of]
        return {self._model_of.pop(pid) for pid in lost}

    def _look_around(self) -> None:
        present = set(processes.pids())
        self._children &= present
        self._children |= {pid for pid in present - self._known if processes.parent(pid) == self._server}
        self._known = present
        self._model_of = {pid: model for pid, model in self._model_of.items() if pid in present}

    def _is_zombie(self, pid: int) -> bool:
        try:
            arguments = (processes.PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        if arguments == [b""]:  # only a zombie has none
            return True
        # triton_python_backend_stub <repository>/<model>/<version>/model.py ...
        path = Path(arguments[1].decode("utf-8", "surrogateescape")) if len(arguments) > 1 else Path()
        if path.is_relative_to(self._models):
            self._model_of[pid] = path.relative_to(self._models).parts[0]
        return False
