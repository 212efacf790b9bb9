"""What the addons share: settings, route table, ledger, the client of Triton."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, override

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core.app import App
from immich_triton.ml.clip_ownership import Ownership
from immich_triton.ml.fingerprints import Doubts
from immich_triton.ml.route_watch import RouteWatch, read_table
from immich_triton.ml.routes import RouteTable
from immich_triton.ml.settings import Settings
from immich_triton.ml.supervisor import Supervisor
from immich_triton.proxy.progress import BUDGET
from immich_triton.triton.client import TritonClient

if TYPE_CHECKING:
    from immich_triton.triton.inference import Call

logger = logging.getLogger(__name__)

DOUBT_INTERVAL = 2.0
"""Seconds from one question to the next to a pipeline that did not answer with its route's weights."""

DOUBT_DEADLINE = 10.0
"""Seconds that it has for the answer."""

CLIENT_SETTINGS = ("triton_url", "triton_timeout", "triton_key", "max_at_triton", "supervisor")
"""The settings that the client of Triton, and that of its supervisor, is made from."""


class Service(App[Settings]):
    """State of one loaded gateway; empty until `configure` succeeded."""

    def __init__(self) -> None:
        super().__init__()
        self._routes: RouteWatch | None = None
        self._ownership: Ownership | None = None
        self._clients: tuple[TritonClient, Supervisor] | None = None
        self.doubts = Doubts()
        self._watching: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[Any]] = set()

    @property
    def table(self) -> RouteTable:
        """The routes. Raises `ProtocolError` (503) while there are none."""
        return self.need(self._routes).table

    @property
    def ownership(self) -> Ownership:
        """Which CLIP names are ours. Raises `ProtocolError` (503) while there are no settings."""
        return self.need(self._ownership)

    @property
    def triton(self) -> TritonClient:
        """The client; made on first use, inside the running event loop."""
        return self._connect()[0]

    @property
    def supervisor(self) -> Supervisor:
        """Who knows which routes sleep; made together with the client."""
        return self._connect()[1]

    def _connect(self) -> tuple[TritonClient, Supervisor]:
        if self._clients is None:
            supervisor = Supervisor(self.settings.supervisor, lambda models: triton.renewed(models))
            triton = TritonClient(
                self.settings.triton_url,
                timeout=self.settings.triton_timeout,
                key=self.settings.triton_key,
                max_at_triton=self.settings.max_at_triton,
                observer=self.observers,
                explain=supervisor.explain,
            )
            self._clients = triton, supervisor
        return self._clients

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise `RouteError` or `LedgerError` when a gateway cannot work with *settings*."""
        read_table(settings)
        Ownership(settings.state_dir).check()

    def configure(self, settings: Settings) -> None:
        """Take new settings. Raises `RouteError` or `LedgerError`, and then changes nothing."""
        ownership = Ownership(settings.state_dir)
        ownership.check()
        if self._routes is None or not self._routes.is_for(settings):
            self._routes = RouteWatch(settings)
            if self._watching is not None:
                self._watching.cancel()
                self.watch()
        if self._settings is None or any(
            getattr(self._settings, name) != getattr(settings, name) for name in CLIENT_SETTINGS
        ):
            self._retire_triton()
        self._settings, self._ownership = settings, ownership
        BUDGET.limit = settings.max_waiting

    def watch(self) -> None:
        """Read the routes again whenever their files change. Raises `ProtocolError` while there are no settings."""
        self._watching = self.spawn(self.need(self._routes).run(), "watch the routes")

    async def settled(self) -> None:
        """Wait until what has no route surely has none. Raises `ProtocolError` (503)."""
        await self.need(self._routes).settled()

    def look_after_doubts(self) -> None:
        """Ask pipelines again that answered with other weights than their route's: perhaps that is mended."""
        self.spawn(self._look_after_doubts(), "ask again whose weights answer")

    async def _look_after_doubts(self) -> None:
        while True:
            await asyncio.sleep(DOUBT_INTERVAL)
            if self._routes is not None:
                await self.doubts.ask_again(self.table.routes, self._ask_shortly)

    async def _ask_shortly(self, call: Call) -> Mapping[str, Any]:
        # Held awake until it is settled: asleep, a pipeline that answers with other weights would look well.
        route = next((route.folder for route in self.table.routes if call.pipeline in route.pipelines), "")
        async with self.supervisor.in_use(route, call.pipeline.all_models, DOUBT_DEADLINE):
            return await self.triton.infer(call, DOUBT_DEADLINE, patient=False)

    async def why_not_ready(self, *, within: float) -> dict[str, str]:
        """Return what is missing for any route, with the reason, in at most *within* seconds.

        A pipeline whose requests wait is missing too, whatever Triton says: it reports dead processes as ready.
        """
        pipelines = list(self.table.pipelines())
        models = [model for pipeline in pipelines for model in pipeline.all_models]
        unready = await self.triton.not_ready(models, within=within)
        return self.doubts.about(self.table.routes) | self.triton.waiting(pipelines) | unready

    def refuse_owned(self, name: str) -> None:
        """Raise `ProtocolError` (503) when a CLIP *name* without a route was once ours."""
        self.ownership.refuse_without_route(name, self.settings.models)

    def track(self, work: asyncio.Task[Any]) -> None:
        """Remember a request that is being answered, so that a reload does not cut it off."""
        self._requests.add(work)
        work.add_done_callback(self._requests.discard)

    @override
    def close(self) -> None:
        """Stop what runs in the background; requests that are being answered end in peace."""
        super().close()
        self._retire_triton()

    def _retire_triton(self) -> None:
        if self._clients is not None:
            clients, self._clients = self._clients, None
            # Not tracked: it has to outlive the gateway.
            create_task(self._close(*clients, set(self._requests)), name="close a client of Triton", keep_ref=True)

    @staticmethod
    async def _close(client: TritonClient, supervisor: Supervisor, requests: set[asyncio.Task[Any]]) -> None:
        if requests:
            await asyncio.wait(requests)
        supervisor.close()
        await client.close()
