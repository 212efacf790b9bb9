"""The route table that counts: taken over only as it was seen twice alike, so never from between two renames."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from immich_triton.core.errors import ProtocolError
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.routes import Look, RouteTable, load_routes, look
from immich_triton.ml.tasks import TASKS

if TYPE_CHECKING:
    from immich_triton.ml.settings import Settings

logger = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two looks at the route files."""

FIRST_INTERVAL: Final = 0.25
"""Seconds from the look at the start to the second one, for which the first requests wait."""

SETTLE_WITHIN: Final = 10.0
"""Seconds that a request waits for the second look at most; far more than it takes unless files change all the time."""

ATTEMPTS: Final = 5
"""How often the files are read at the start while they change."""


class RouteWatch:
    """The routes in the model repository that *settings* name, read at once. Raises `RouteError`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: Look | None = None
        self._before: Look | None = None
        self._settled = asyncio.Event()
        self._told = ""
        self.table = self._read_first()
        for line in self.table.describe() or [f"nothing: no route in {settings.models}"]:
            logger.info("Triton answers %s", line)

    def is_for(self, settings: Settings) -> bool:
        """Return whether the routes would be the same ones with these settings."""
        mine = self._settings
        return (mine.models, mine.allow_untrained) == (settings.models, settings.allow_untrained)

    async def settled(self) -> None:
        """Wait until the routes were seen twice alike since the start.

        Raises `ProtocolError` (503) when they never are. What has no route would go to the stock ML, and perhaps its
        route is just being replaced.
        """
        if self._settled.is_set():
            return
        try:
            async with asyncio.timeout(SETTLE_WITHIN):
                await self._settled.wait()
        except TimeoutError:
            text = f"the route files in {self._settings.models} cannot be read, or change all the time"
            raise ProtocolError(503, f"{text}; see the gateway's log") from None

    async def run(self) -> None:
        """Look again and again."""
        await asyncio.sleep(FIRST_INTERVAL)
        while True:
            self.look_again()
            await asyncio.sleep(INTERVAL)

    def look_again(self) -> None:
        """Take changed routes over once they look as they did the last time; else the old table stays.

        What cannot be looked at, or is not valid, is tried again the next time; the log says so once.
        """
        try:
            now, before = look(self._settings.models), self._before
            self._before = now
            if now != before or (now != self._seen and not self._take_over(now)):
                return
        except (RouteError, OSError) as error:
            self._tell(f"the routes stay as they were: {error}")
            if isinstance(error, OSError):
                return
        else:
            self._told = ""
        self._settled.set()

    def _take_over(self, now: Look) -> bool:
        """Read what looks like *now*; False when it changed meanwhile. Raises `RouteError` or OSError."""
        table = read_table(self._settings)
        if look(self._settings.models) != now:
            return False
        self.table, self._seen = table, now
        logger.warning("routes reloaded: Triton answers %s", "; ".join(table.describe()) or "nothing")
        return True

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            logger.error("%s", problem)

    def _read_first(self) -> RouteTable:
        """Read the table, again when files change meanwhile: a folder that vanishes at this moment stops no start."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                now = look(self._settings.models)
                table = read_table(self._settings)
                if look(self._settings.models) == now:
                    self._seen = self._before = now
                    return table
                problem = RouteError(f"the route files in {self._settings.models} change all the time")
            except (RouteError, OSError) as error:
                problem = error if isinstance(error, RouteError) else RouteError(str(error))
            if attempt < ATTEMPTS:
                time.sleep(FIRST_INTERVAL / ATTEMPTS)
        raise problem


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
