"""Immich's PostgreSQL, read with a role that may do nothing else: connections, what it offers, what becomes of faults.

Nothing here knows a search. What is asked stands in `relevance.by_database`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from immich_triton.core.paths import SQL
from immich_triton.web.failopen import brief
from immich_triton.web.patience import Patience

logger = logging.getLogger(__name__)

INSTALL: Final = SQL / "install.sql"

CONNECTIONS: Final = 4
CONNECTING: Final = 2.0
"""Seconds for a new connection; a search that needs one waits no longer than it may."""

IDLE: Final = 60.0
"""Seconds after which an idle connection is closed."""

NOTICEABLE: Final = 0.05
"""Seconds of waiting from which on a time-out is the database's: with less left of a search it is somebody else's."""

BACK_OFF: Final = 30.0
"""Seconds that searches do without a database that failed."""

LOOKED_AT: Final = 600.0
"""Seconds after which it is asked anew what it offers: an update of Immich may have made its tables again."""

OFFERS: Final = """
SELECT
    coalesce(has_column_privilege(to_regclass('public.asset_ocr'), 'text', 'SELECT'), false) AS lines,
    EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('public.asset') AND attname = 'ownerId'
          AND has_column_privilege(attrelid, attnum, 'SELECT')
    ) AS owners,
    to_regprocedure('immich_triton.words(text)') IS NOT NULL AND EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = to_regclass('public.asset_ocr') AND indisvalid
          AND indexrelid = to_regclass('public.immich_triton_asset_ocr_words')
    ) AS full_text
"""


class DatabaseFault(Exception):  # noqa: N818 - the name is the fault
    """The database cannot be asked, or failed lately and is left alone for a while."""


@dataclass(frozen=True)
class Offers:
    """What deploy/sql/install.sql left here for our role.

    *owners*: whose photo it is may be read. *full_text*: the configuration and the index that zhparser makes possible.
    """

    owners: bool
    full_text: bool

    @property
    def level(self) -> str:
        """Return the level in words, for the log."""
        if self.full_text:
            return "full-text search with zhparser in Immich's database"
        return f"read from Immich's database, without full-text search ({INSTALL} found no zhparser)"


class Database:
    """At most `CONNECTIONS` connections to *url*, opened when somebody searches; *slowest* statement in seconds."""

    def __init__(self, url: str, slowest: float) -> None:
        self._url = url
        self._slowest = slowest
        self._pool: asyncpg.Pool | None = None
        self._offers: Offers | None = None
        self._said: Offers | None = None
        self._looked_at = 0.0
        self._silent_until = 0.0

    def is_at(self, url: str, slowest: float) -> bool:
        """Whether this is what the constructor makes of *url* and *slowest*."""
        return (self._url, self._slowest) == (url, slowest)

    @property
    def is_asked(self) -> bool:
        """Whether it is asked now; for a while after a fault it is not."""
        return time.monotonic() >= self._silent_until

    async def offers(self, *, within: Patience | float) -> Offers:
        """Return what is offered, asked anew every `LOOKED_AT` seconds. Raises like `fetch`."""
        now = time.monotonic()
        if self._offers is None or now - self._looked_at > LOOKED_AT:
            (row,) = await self.fetch(OFFERS, within=within)
            if not row["lines"]:
                with self._noticing_faults():
                    raise DatabaseFault(f"the role may not read asset_ocr: run {INSTALL}")
            fresh = Offers(row["owners"], row["full_text"])
            if self._said not in (None, fresh):
                logger.info("relevance of text, from now on: %s", fresh.level)
            self._offers, self._said, self._looked_at = fresh, fresh, now
        return self._offers

    async def fetch(
        self, statement: str, *parameters: Any, within: Patience | float, share: float = 1.0, fault: bool = True
    ) -> Sequence[Mapping[str, Any]]:
        """Run a *statement* and return its rows.

        Raises `DatabaseFault`, and TimeoutError after *within* seconds, or a *share* of what is left of that patience.
        Either way searches do without the database for the next `BACK_OFF` seconds; but not after a time-out that is no
        *fault*, or with hardly any time given.
        """
        if not self.is_asked:
            raise DatabaseFault("it failed lately")
        patience = within if isinstance(within, Patience) else Patience(within)
        given, began = 0.0, asyncio.get_running_loop().time()
        with self._noticing_faults(of_time=lambda: fault and given >= NOTICEABLE):
            async with patience.limit(share) as limit:
                try:
                    if self._pool is None:
                        self._pool = await self._new_pool()
                    # The time is for giving it back too: a server that hangs does not answer to an end either.
                    async with self._pool.acquire(timeout=share * patience.left) as connection:
                        rows: Sequence[Mapping[str, Any]] = await connection.fetch(statement, *parameters)
                        return rows
                finally:
                    given = (limit.when() or began) - began

    def close(self) -> None:
        """Close the connections, whatever they are at."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.terminate()

    def _new_pool(self) -> asyncpg.Pool:
        return asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=CONNECTIONS,
            max_inactive_connection_lifetime=IDLE,
            timeout=CONNECTING,
            server_settings={
                "application_name": "immich-triton",
                # Said here too, in case the role is another one than that of deploy/sql.
                "default_transaction_read_only": "on",
                "statement_timeout": str(int(1000 * self._slowest)),
                "jit": "off",  # takes longer than these statements
            },
        )

    @contextmanager
    def _noticing_faults(self, *, of_time: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Leave a database that fails alone for a while, and say so once."""
        try:
            yield
        except asyncpg.DataError as error:  # about this one query: nobody else has to do without
            logger.warning("a query is more than the database understands: %s", brief(error))
            raise DatabaseFault(type(error).__name__) from error
        except Exception as error:
            if isinstance(error, TimeoutError) and not of_time():
                raise
            self._offers = None
            self._silent_until = time.monotonic() + BACK_OFF
            logger.warning(
                "the database (web_database_url) is not asked for %d seconds; until then relevance of text is read by "
                "Immich's API: %s",
                BACK_OFF,
                error if isinstance(error, DatabaseFault) else brief(error),
            )
            if isinstance(error, DatabaseFault | TimeoutError):
                raise
            raise DatabaseFault(type(error).__name__) from error
