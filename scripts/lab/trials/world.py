"""What a trial can reach, and the load that runs meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import requests

from harness.program import eventually
from immich_triton.core import direct_requests
from immich_triton.triton import wire as triton_wire
from trials.installation import Installation
from trials.load import Kind, Load, Outcome, ask, count, describe, load
from trials.repository import Repository
from trials.servers import JobQueues, StockMl

CLIENTS: Final = 8


@dataclass
class World:
    """Everything a trial can reach. ``deadline`` in seconds, ``pace`` stretches the times of the faults (1 = full).

    ``repository`` may be broken: it is a copy of the user's.
    """

    site: Installation
    stock: StockMl
    queues: JobQueues
    kinds: Mapping[str, Kind]
    repository: Repository
    deadline: float
    pace: float

    @property
    def routed(self) -> list[str]:
        """The kinds that Triton answers."""
        return [name for name in self.kinds if name not in ("pass", "bad")]

    def cycle(self, *names: str) -> list[Kind]:
        """Return a mix of all kinds, or of those named."""
        return [self.kinds[name] for name in names or self.kinds]

    def one(self, name: str) -> Outcome:
        """Send one request of the kind *name*."""
        return self.one_of(self.kinds[name])

    def one_of(self, kind: Kind) -> Outcome:
        """Send one request."""
        with requests.Session() as session:
            session.trust_env = False
            return ask(session, self.site.url, kind)

    def control(self, model: str, action: str) -> None:
        """Load or unload a model in Triton."""
        address = self.site.triton_url + triton_wire.control(model, action)
        direct_requests.post(address, timeout=120).raise_for_status()

    def loads(self, model: str) -> bool:
        """Have a model loaded, and tell whether that could be done."""
        try:
            self.control(model, "load")
        except requests.HTTPError:
            return False
        return True

    @contextmanager
    def load(self, *names: str) -> Iterator[Load]:
        """Run the load, once it has been answered."""
        with load(self.site.url, self.cycle(*names), CLIENTS) as clients:
            if not eventually(lambda: any(one.status == 200 for one in clients.since()), 60):
                raise RuntimeError(
                    f"nothing is answered before anything was broken: {describe(count(clients.since()))}"
                )
            yield clients
