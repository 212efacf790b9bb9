"""What the addons share: settings, route table, ledger, the client of Triton."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from typing import Any

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.inference import TritonError, WrongWeights
from immich_triton.ledger import Ledger
from immich_triton.observer import Observers
from immich_triton.progress import BUDGET
from immich_triton.protocol import ProtocolError
from immich_triton.route_watch import RouteWatch, read_table
from immich_triton.routes import Pipeline, Route, RouteTable
from immich_triton.settings import Settings
from immich_triton.transport import GARBAGE
from immich_triton.triton import TritonClient
from immich_triton.weights import Doubts, compare, question

logger = logging.getLogger(__name__)

DOUBT_INTERVAL = 2.0
"""Seconds from one question to the next to a pipeline that did not answer with its route's weights."""

DOUBT_DEADLINE = 10.0
"""Seconds that it has for the answer."""

CLIENT_SETTINGS = ("triton_url", "triton_timeout", "triton_key", "max_at_triton")
"""The settings that the client of Triton is made from."""


class Service:
    """State of one loaded gateway; empty until `configure` succeeded."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self._settings: Settings | None = None
        self._routes: RouteWatch | None = None
        self._ledger: Ledger | None = None
        self._triton: TritonClient | None = None
        self.observers = Observers()
        self.budget = BUDGET
        self.doubts = Doubts()
        self.draining = False
        self._watching: asyncio.Task[None] | None = None
        self._owning: dict[str, asyncio.Task[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[Any]] = set()

    @property
    def settings(self) -> Settings:
        """The settings. Raises `ProtocolError` (503) while there are none."""
        return self._need(self._settings)

    @property
    def table(self) -> RouteTable:
        """The routes. Raises `ProtocolError` (503) while there are none."""
        return self._need(self._routes).table

    @property
    def ledger(self) -> Ledger:
        """The ledger. Raises `ProtocolError` (503) while there is none."""
        return self._need(self._ledger)

    @property
    def triton(self) -> TritonClient:
        """The client; made on first use, inside the running event loop."""
        if self._triton is None:
            self._triton = TritonClient(
                self.settings.triton_url,
                timeout=self.settings.triton_timeout,
                key=self.settings.triton_key,
                max_at_triton=self.settings.max_at_triton,
                observer=self.observers,
            )
        return self._triton

    @staticmethod
    def _need[T](value: T | None) -> T:
        if value is None:
            raise ProtocolError(503, "immich-triton has no valid configuration; see mitmproxy's log")
        return value

    @staticmethod
    def check(settings: Settings) -> Ledger:
        """Raise `RouteError` or `LedgerError` when a gateway cannot work with *settings*; return the ledger."""
        read_table(settings)
        ledger = Ledger(settings.state_dir)
        ledger.owned()
        return ledger

    def configure(self, settings: Settings) -> None:
        """Take new settings. Raises `RouteError` or `LedgerError`, and then changes nothing."""
        ledger = Ledger(settings.state_dir)
        ledger.owned()
        if self._routes is None or not self._routes.is_for(settings):
            self._routes = RouteWatch(settings)
            if self._watching is not None:
                self._watching.cancel()
                self.watch()
        if self._settings is None or any(
            getattr(self._settings, name) != getattr(settings, name) for name in CLIENT_SETTINGS
        ):
            self._retire_triton()
        self._settings, self._ledger = settings, ledger
        self.budget.limit = settings.max_waiting

    def watch(self) -> None:
        """Read the routes again whenever their files change. Raises `ProtocolError` while there are no settings."""
        self._watching = self.spawn(self._need(self._routes).run(), "watch the routes")

    async def settled(self) -> None:
        """Wait until what has no route surely has none. Raises `ProtocolError` (503)."""
        await self._need(self._routes).settled()

    def look_after_doubts(self) -> None:
        """Ask pipelines again that answered with other weights than their route's: perhaps that is mended."""
        self.spawn(self._look_after_doubts(), "ask again whose weights answer")

    async def _look_after_doubts(self) -> None:
        while True:
            await asyncio.sleep(DOUBT_INTERVAL)
            if self._routes is not None:
                for route, pipeline in self.doubts.to_ask(self.table.routes):
                    await self._ask_again(route, pipeline)

    async def _ask_again(self, route: Route, pipeline: Pipeline) -> None:
        try:
            compare(route, pipeline, await self.triton.infer(question(pipeline), DOUBT_DEADLINE, patient=False))
        except WrongWeights as reason:
            self.doubts.add(pipeline, reason)
        except (TritonError, *GARBAGE) as error:
            logger.debug("%s does not tell its weights: %r", pipeline.name, error)
        else:
            self.doubts.settle(pipeline)
            logger.warning("%s answers with the weights of its route again", pipeline.name)

    async def why_not_ready(self, *, within: float) -> dict[str, str]:
        """Return what is missing for any route, with the reason, in at most *within* seconds."""
        models = [model for pipeline in self.table.pipelines() for model in pipeline.all_models]
        return self.doubts.about(self.table.routes) | await self.triton.not_ready(models, within=within)

    def refuse_other_weights(self, route: Route, name: str) -> None:
        """Raise `ProtocolError` (503) when other weights than the route's answered under a CLIP *name* before.

        Raises `LedgerError` when that is unknown.
        """
        self._compare(route, name, self.ledger.owned().get(name, route.weights_sha256))

    async def own(self, route: Route, name: str) -> None:
        """Make sure that a CLIP *name* may be answered with the route's weights, now and for ever.

        Raises `ProtocolError` (503) when other weights answered under it before, `LedgerError` when that is unknown.
        """
        known = self.ledger.owned().get(name)
        if known is None:
            # In a thread, because another process may hold the ledger's lock; one for all requests of a name.
            if name not in self._owning:
                work = asyncio.to_thread(self.ledger.own, name, route.weights_sha256)
                task: asyncio.Task[str] = create_task(work, name=f"own {name}", keep_ref=True)
                self._owning[name] = task
                task.add_done_callback(lambda task: self._owned(name, task))
            known = await asyncio.shield(self._owning[name])
        self._compare(route, name, known)

    def _owned(self, name: str, task: asyncio.Task[str]) -> None:
        del self._owning[name]
        if not task.cancelled():
            task.exception()  # told to whoever waits; perhaps nobody does any more

    def _compare(self, route: Route, name: str, known: str) -> None:
        if known != route.weights_sha256:
            raise ProtocolError(503, self._stale(name, f"now has other weights (route {route.source})"))

    def refuse_owned(self, name: str) -> None:
        """Raise `ProtocolError` (503) when a CLIP *name* without a route was once ours."""
        if name in self.ledger.owned():
            raise ProtocolError(503, self._stale(name, f"has no route in {self.settings.models}"))

    def _stale(self, name: str, problem: str) -> str:
        return (
            f"{name} was answered by Triton before and {problem}; another model's vectors would spoil the search "
            f"index. Restore the model, or rebuild the index (Smart Search, All) and run: "
            f".venv/bin/python scripts/ledger.py --state-dir {self.settings.state_dir} forget {name}"
        )

    def track(self, work: asyncio.Task[Any]) -> None:
        """Remember a request that is being answered, so that a reload does not cut it off."""
        self._requests.add(work)
        work.add_done_callback(self._requests.discard)

    def close(self) -> None:
        """Stop what runs in the background; requests that are being answered end in peace."""
        for task in list(self._tasks):
            task.cancel()
        self._retire_triton()

    def _retire_triton(self) -> None:
        if self._triton is not None:
            client, self._triton = self._triton, None
            # Not tracked: it has to outlive the gateway.
            create_task(self._close(client, set(self._requests)), name="close a client of Triton", keep_ref=True)

    @staticmethod
    async def _close(client: TritonClient, requests: set[asyncio.Task[Any]]) -> None:
        if requests:
            await asyncio.wait(requests)
        await client.close()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something in the background until `close`."""
        task: asyncio.Task[None] = create_task(work, name=name, keep_ref=True)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
