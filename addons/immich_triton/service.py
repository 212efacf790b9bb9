"""What the addons share: settings, route table, ledger, the client of Triton."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from typing import Any

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.ledger import Ledger
from immich_triton.observer import Observers
from immich_triton.progress import BUDGET
from immich_triton.protocol import ProtocolError
from immich_triton.request_id import detached
from immich_triton.routes import Route, RouteError, RouteTable, fingerprint, load_routes
from immich_triton.settings import Settings
from immich_triton.tasks import TASKS
from immich_triton.triton import TritonClient

logger = logging.getLogger(__name__)

WATCH_INTERVAL = 1.0
"""Seconds between two looks at the route files."""

CLIENT_SETTINGS = ("triton_url", "triton_timeout", "triton_key", "max_at_triton")
"""The settings that the client of Triton is made from."""


class Service:
    """State of one loaded gateway; empty until `configure` succeeded."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self._settings: Settings | None = None
        self._table: RouteTable | None = None
        self._ledger: Ledger | None = None
        self._triton: TritonClient | None = None
        self.observers = Observers()
        self.budget = BUDGET
        self.draining = False
        self._seen: object = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[Any]] = set()

    @property
    def settings(self) -> Settings:
        """The settings. Raises `ProtocolError` (503) while there are none."""
        return self._need(self._settings)

    @property
    def table(self) -> RouteTable:
        """The routes. Raises `ProtocolError` (503) while there are none."""
        return self._need(self._table)

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

    def configure(self, settings: Settings) -> None:
        """Take new settings. Raises `RouteError` or `LedgerError`, and then changes nothing."""
        ledger = Ledger(settings.state_dir)
        ledger.owned()
        seen = fingerprint(settings.models)
        self._table = read_table(settings)
        if self._settings is None or any(
            getattr(self._settings, name) != getattr(settings, name) for name in CLIENT_SETTINGS
        ):
            self._retire_triton()
        self._settings, self._ledger, self._seen = settings, ledger, seen
        self.budget.limit = settings.max_waiting
        for line in self._table.describe() or ["nothing: no route in " + str(settings.models)]:
            logger.info("Triton answers %s", line)

    def watch(self) -> None:
        """Read the routes again whenever their files change."""
        self.spawn(self._watch(), "watch the routes")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            self.reload_if_changed()

    def reload_if_changed(self) -> None:
        """Load changed routes; when they are not valid the old table stays, with an error in the log."""
        if self._settings is None:
            return
        try:
            seen = fingerprint(self._settings.models)
            if seen == self._seen:
                return
            self._seen = seen
            self._table = read_table(self._settings)
        except (RouteError, OSError) as error:
            logger.error("the routes stay as they were: %s", error)  # noqa: TRY400 - the message says it all
        else:
            logger.warning("routes reloaded: Triton answers %s", "; ".join(self._table.describe()) or "nothing")

    async def why_not_ready(self, *, within: float) -> dict[str, str]:
        """Return what is missing for any route, with the reason, in at most *within* seconds.

        A pipeline whose requests wait is missing too, whatever Triton says: it reports dead processes as ready.
        """
        pipelines = list(self.table.pipelines())
        models = [model for pipeline in pipelines for model in pipeline.all_models]
        unready = await self.triton.not_ready(models, within=within)
        return {**self.triton.waiting(pipelines), **unready}

    def own(self, route: Route, name: str) -> None:
        """Make sure that a CLIP *name* may be answered with the route's weights, now and for ever.

        Raises `ProtocolError` (503) when other weights answered under it before, `LedgerError` when that is unknown.
        """
        known = self.ledger.owned().get(name) or self.ledger.own(name, route.weights_sha256)
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

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something in the background until `close`."""
        task = detached(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def read_table(settings: Settings) -> RouteTable:
    """Load and check the routes. Raises `RouteError`."""
    table = load_routes(settings.models)
    for route in table.routes:
        TASKS[route.task].check(route)
        if route.untrained and not settings.allow_untrained:
            raise RouteError(
                f"{route.source}: {', '.join(route.names)} has random weights, made for tests; export real ones, "
                "or set immich_allow_untrained"
            )
    return table
