"""The Python processes ("stubs") inside the embedded Triton.

When one is killed (out of memory), crashes in native code or is stopped, Triton goes on giving it its share of the
requests and each fails with "Stub process is not healthy", for ever (seen with 2.51). The model reports ready all the
while. Only unloading and loading it again helps; loading alone does nothing, since no file changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immich_triton.server import processes

LINGER_SECONDS: Final = 1.0
"""A stub that ends in order is a zombie for a moment too, until Triton has waited for it."""
FORGET_SECONDS: Final = 30.0
"""A complaint about a stub that is not repeated for so long was about a passing hiccup."""

STOPPED: Final = "T"
ZOMBIE: Final = "Z"


@dataclass(frozen=True)
class Stub:
    """One process of a model. *instance* is its name in Triton's messages, such as ``ocr_rec_0_1``."""

    pid: int
    model: str
    instance: str


@dataclass
class _Complaint:
    """When Triton called a stub unhealthy, the first and the last time."""

    first: float
    last: float


class StubWatch:
    """Finds stubs of the server *pid* that died or hang. The kernel tells: the server does not wait for its children.

    Only children of the server itself are stubs, whatever those start in turn. A look costs a few milliseconds, since
    only processes that are new are asked for their parent. (The server's own ``task/*/children`` would be the direct
    way, and took 0.1 s for the 659 threads of a Triton with all tasks.)

    *clock* in seconds of our own time, see `OwnTime`: a container that was frozen as a whole has no stub that hangs.
    """

    def __init__(self, pid: int, models: Path, hung_seconds: float, clock: Callable[[], float]) -> None:
        self._server = pid
        self._models = models
        self._hung_seconds = hung_seconds
        self._clock = clock
        self._known: set[int] = set()
        self._children: set[int] = set()
        self._stubs: dict[int, Stub] = {}
        self._zombie_since: dict[int, float] = {}
        self._stopped_since: dict[int, float] = {}
        self._complaints: dict[int, _Complaint] = {}

    def look(self) -> None:
        """Look which processes there are and what they do. `died`, `hung` and `of` are about what was seen here."""
        now = self._clock()
        present = set(processes.pids())
        self._children &= present
        self._children |= {pid for pid in present - self._known if processes.parent(pid) == self._server}
        self._known = present
        self._stubs = {pid: stub for pid, stub in self._stubs.items() if pid in self._children}
        self._complaints = {pid: one for pid, one in self._complaints.items() if pid in self._stubs}
        states = {pid: processes.state(pid) for pid in self._children}
        for pid in self._children - self._stubs.keys():
            self._recognise(pid)
        self._zombie_since = _since(self._zombie_since, now, (pid for pid in states if states[pid] == ZOMBIE))
        # Whoever stops the server does so on purpose, and lets all of it go on together.
        stopped = () if processes.state(self._server) == STOPPED else (pid for pid in states if states[pid] == STOPPED)
        self._stopped_since = _since(self._stopped_since, now, stopped)

    def died(self) -> set[Stub]:
        """Return the stubs that died since the last call."""
        now = self._clock()
        lost = [pid for pid, since in self._zombie_since.items() if now - since >= LINGER_SECONDS]
        return {self._stubs.pop(pid) for pid in lost if pid in self._stubs}

    def hung(self) -> set[Stub]:
        """Return the stubs that have been stopped, or called unhealthy by Triton again and again, for too long."""
        now = self._clock()
        hung = {pid for pid, since in self._stopped_since.items() if now - since >= self._hung_seconds}
        hung |= {pid for pid, one in self._complaints.items() if one.last - one.first >= self._hung_seconds}
        return {stub for pid, stub in self._stubs.items() if pid in hung and pid not in self._zombie_since}

    def of(self, model: str) -> set[Stub]:
        """Return the stubs of *model* that live."""
        return {stub for pid, stub in self._stubs.items() if stub.model == model and pid not in self._zombie_since}

    def complain(self, instance: str) -> None:
        """Take note that Triton called a stub unhealthy: of several with that name, the one that came last."""
        now = self._clock()
        pid = next((pid for pid in reversed(self._stubs) if self._stubs[pid].instance == instance), None)
        if pid is None:
            return
        one = self._complaints.get(pid)
        if one is None or now - one.last > FORGET_SECONDS:
            one = self._complaints[pid] = _Complaint(now, now)
        one.last = now

    def end(self, stub: Stub) -> None:
        """Kill a stub and what it started. It is not reported as having died any more."""
        if self._stubs.pop(stub.pid, None) and processes.parent(stub.pid) == self._server:
            processes.kill_tree(stub.pid)

    def _recognise(self, pid: int) -> None:
        # triton_python_backend_stub <repository>/<model>/<version>/<file> <shared memory> <its size> <its growth>
        # <the server> <Python backend> <offset> <instance> <Python-based backend>
        arguments = processes.arguments(pid)
        if len(arguments) > INSTANCE and (path := Path(arguments[1])).is_relative_to(self._models):
            self._stubs[pid] = Stub(pid, path.relative_to(self._models).parts[0], arguments[INSTANCE])


INSTANCE: Final = 8
"""Which argument of a stub is the name of its instance."""


def _since(before: dict[int, float], now: float, pids: Iterable[int]) -> dict[int, float]:
    return {pid: before.get(pid, now) for pid in pids}
