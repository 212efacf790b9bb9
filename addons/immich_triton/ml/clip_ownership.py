"""Which CLIP names may be answered with which weights, by the ledger: what was once ours stays ours.

Whether the weights that answered are those of the route is looked at in `ml.fingerprints`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core.errors import ProtocolError
from immich_triton.ml.ledger import Ledger

if TYPE_CHECKING:
    from immich_triton.ml.route_file import Route


class Ownership:
    """The ledger in *state_dir*, for the event loop. Every method raises `LedgerError` while it cannot be read."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._ledger = Ledger(state_dir)
        self._owning: dict[str, asyncio.Task[str]] = {}

    def check(self) -> None:
        """Read the ledger."""
        self._ledger.owned()

    def refuse_without_route(self, name: str, models: Path) -> None:
        """Raise `ProtocolError` (503) when a CLIP *name* without a route in *models* was once ours."""
        if name in self._ledger.owned():
            raise self._stale(name, f"has no route in {models}")

    def refuse_other_weights(self, route: Route, name: str) -> None:
        """Raise `ProtocolError` (503) when other weights than the route's answered under a CLIP *name* before."""
        self._compare(route, name, self._ledger.owned().get(name, route.weights_sha256))

    async def own(self, route: Route, name: str) -> None:
        """Make sure that a CLIP *name* may be answered with the route's weights, now and for ever.

        Raises `ProtocolError` (503) when other weights answered under it before.
        """
        known = self._ledger.owned().get(name)
        if known is None:
            # In a thread, because another process may hold the ledger's lock; one for all requests of a name.
            if name not in self._owning:
                work = asyncio.to_thread(self._ledger.own, name, route.weights_sha256)
                task: asyncio.Task[str] = create_task(work, name=f"own {name}", keep_ref=True)
                self._owning[name] = task
                task.add_done_callback(lambda task: self._end(name, task))
            known = await asyncio.shield(self._owning[name])
        self._compare(route, name, known)

    def _end(self, name: str, task: asyncio.Task[str]) -> None:
        del self._owning[name]
        if not task.cancelled():
            task.exception()  # told to whoever waits; perhaps nobody does any more

    def _compare(self, route: Route, name: str, known: str) -> None:
        if known != route.weights_sha256:
            raise self._stale(name, f"now has other weights (route {route.source})")

    def _stale(self, name: str, problem: str) -> ProtocolError:
        return ProtocolError(
            503,
            f"{name} was answered by Triton before and {problem}; another model's vectors would spoil the search "
            f"index. Restore the model, or rebuild the index (in Immich: Smart Search, All) and run: "
            f"immich-triton ledger --state-dir {self._state_dir} forget {name}",
        )
