"""What the addons of the site share: settings, the client of Immich, the lists ranked lately."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from typing import TYPE_CHECKING, Final

from mitmproxy import ctx
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.immich.api import SERVER_PING, Unreachable, exchange
from immich_triton.web.account import Stopwatch
from immich_triton.web.database import CONNECTING, Database, DatabaseFault
from immich_triton.web.immich import Immich, Refused, client
from immich_triton.web.lists import Lists
from immich_triton.web.measurements import Measurements
from immich_triton.web.recent import Recent
from immich_triton.web.relevance import chinese
from immich_triton.web.relevance.by_api import Texts
from immich_triton.web.text_side import LEISURE

if TYPE_CHECKING:
    import aiohttp
    from mitmproxy.http import Request

    from immich_triton.web.caller import Caller
    from immich_triton.web.settings import Settings

logger = logging.getLogger(__name__)

MOST_USERS: Final = 1000


class Service:
    """State of one loaded script; without settings until `configure`."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._session: aiohttp.ClientSession | None = None
        self.lists = Lists()
        self.texts = Texts()
        self.chinese = chinese.Chinese()
        self.database: Database | None = None
        self.measurements = Measurements()
        self._users = Recent[bytes, str](MOST_USERS)

    @property
    def settings(self) -> Settings:
        """The settings. Raises RuntimeError while there are none."""
        if self._settings is None:
            raise RuntimeError("immich_web has no valid configuration; see mitmproxy's log")
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Take new settings; what was ranked with the old ones is forgotten."""
        self._settings = settings
        self.lists = Lists()
        slowest = LEISURE * settings.ocr_timeout
        if self.database is None or not self.database.is_at(settings.database_url, slowest):
            if self.database is not None:
                self.database.close()
            self.database = Database(settings.database_url, slowest) if settings.database_url else None

    def immich(self, request: Request, caller: Caller, stopwatch: Stopwatch | None = None) -> Immich:
        """Return the API that *request* would go to, for its caller; *stopwatch* takes the time of its answers."""
        return Immich(
            self._client(), base(request.scheme, request.host, request.port), caller, stopwatch or Stopwatch()
        )

    async def immich_answers(self, *, within: float) -> bool:
        """Whether Immich answers its own ping, as the first server that ``--mode`` names."""
        mode = ProxyMode.parse(ctx.options.mode[0])
        if not isinstance(mode, ReverseMode):
            return False
        host, port = mode.address
        try:
            url = base(mode.scheme, host, port) + SERVER_PING
            answer = await exchange(self._client(), "GET", url, headers=(), within=within)
        except Unreachable:
            return False
        return answer.status == 200

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = client(
                verify=not ctx.options.ssl_insecure, authorities=ctx.options.ssl_verify_upstream_trusted_ca
            )
        return self._session

    def warm_up(self) -> None:
        """Load the dictionaries in the background; until then the simplest level serves."""
        create_task(self._warm_up(), name="load the dictionaries", keep_ref=True)

    async def _warm_up(self) -> None:
        self.chinese = await asyncio.to_thread(chinese.load)
        self.texts = Texts()  # those read meanwhile were folded by less
        where = "read by Immich's API"
        if self.database is not None:
            # What it says of itself, or why it cannot be asked, is in the log already.
            with contextlib.suppress(DatabaseFault, TimeoutError):
                where = (await self.database.offers(within=CONNECTING)).level
        logger.info("relevance of text: %s; %s", where, self.chinese.level)

    async def user(self, immich: Immich, *, within: float) -> str | None:
        """Return the id of the caller, or None when Immich does not say: an API key may lack the right to ask.

        It says whose photos come first, and nothing about who may see what.
        """
        if (user := self._users.get(immich.caller.key)) is None:
            try:
                user = str(uuid.UUID(await immich.user(within=within)))
            except (Refused, ValueError, LookupError, TypeError):
                user = ""
            except Unreachable:
                return None
            self._users.put(immich.caller.key, user)
        return user or None

    def close(self) -> None:
        """Close the connections to Immich, once what is under way has had its answer."""
        if self.database is not None:
            self.database.close()
        if self._session is not None:
            session, self._session = self._session, None
            create_task(session.close(), name="close the client of Immich", keep_ref=True)


def base(scheme: str, host: str, port: int) -> str:
    """Return the beginning of an address."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
