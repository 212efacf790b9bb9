"""Immich's own API, asked in the name of the caller and with nothing but the caller's credentials."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from immich_triton.immich.api import JOBS, Answer, Unreachable, asset, exchange, text_of

if TYPE_CHECKING:
    from immich_triton.web.account import Stopwatch
    from immich_triton.web.caller import Caller

CONNECTIONS: Final = 64
IDLE: Final = 2.0
"""Seconds a connection is kept for the next call; Node closes its own after five."""

PATIENCE: Final = 120.0
"""Seconds for a search: as long as the machine learning may take for the words."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """Immich answered with an error; its answer becomes the answer to the caller."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"Immich answered {answer.status}")
        self.answer = answer


@dataclass(frozen=True)
class Found:
    """The photos on one page of a search, and the answer they stood in; *more* says whether a page follows."""

    answer: Answer
    body: dict[str, Any]
    items: Mapping[str, Any] = field(repr=False)
    more: bool

    @property
    def ids(self) -> tuple[str, ...]:
        """The photos in Immich's order."""
        return tuple(self.items)

    @property
    def knows_filters(self) -> bool:
        """Whether this Immich understands ``filter``; older ones ignore it in silence."""
        return "nextCursor" in self.body["assets"]


def client(*, verify: bool, authorities: str | None) -> aiohttp.ClientSession:
    """Return a client for all callers. It keeps no cookies: they would go from one caller to the next."""
    trusted: ssl.SSLContext | bool = ssl.create_default_context(cafile=authorities) if authorities else True
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=IDLE, ssl=trusted if verify else False),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept"),
    )


class Immich:
    """The API at *base*, ``http://host:port``, as *caller* may use it."""

    def __init__(self, session: aiohttp.ClientSession, base: str, caller: Caller, stopwatch: Stopwatch) -> None:
        self._session = session
        self._base = base
        self._caller = caller
        self._stopwatch = stopwatch

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self._caller

    async def search(self, route: str, body: Mapping[str, Any], *, within: float = PATIENCE) -> Found:
        """Search. Raises `Refused` for any other status than 200, `Unreachable`, ValueError for what is no result."""
        answer = await self._ask("POST", route, orjson.dumps(body), within)
        if answer.status != 200:
            raise Refused(answer)
        return _found(answer)

    async def lines(self, photo: str, *, within: float) -> list[str]:
        """Return the visible lines of text in a photo, in reading order. Raises like `search`."""
        answer = await self._ask("GET", text_of(photo), None, within)
        if answer.status != 200:
            raise Refused(answer)
        rows = orjson.loads(answer.content)
        return [row["text"] for row in rows if row.get("isVisible", True)]

    async def user(self, *, within: float) -> str:
        """Return the id of the caller. Raises like `search`."""
        answer = await self._ask("GET", "/api/users/me", None, within)
        if answer.status != 200:
            raise Refused(answer)
        return str(orjson.loads(answer.content)["id"])

    async def may_start_jobs(self, *, within: float) -> Answer:
        """Return Immich's answer to an order of nothing: 204 for who may start jobs for assets. Raises `Refused`."""
        body = orjson.dumps({"assetIds": [], "name": "refresh-metadata"})
        return self._expect(204, await self._ask("POST", JOBS, body, within))

    async def may_change(self, photo: str, *, within: float) -> Answer:
        """Change nothing in a photo, which only its owner may do, and leaves no trace. Raises like `search`.

        *photo* is a UUID in lower case.
        """
        answer = self._expect(200, await self._ask("PUT", asset(photo), b"{}", within))
        if orjson.loads(answer.content)["id"] != photo:
            raise ValueError("the answer to an empty change is not about the photo that was asked for")
        return answer

    async def lines_as_rows(self, photo: str, *, within: float) -> list[str]:
        """Return the ids of the rows with the lines of text in a photo. Raises like `search`."""
        answer = self._expect(200, await self._ask("GET", text_of(photo), None, within))
        return [str(row["id"]) for row in orjson.loads(answer.content)]

    @staticmethod
    def _expect(status: int, answer: Answer) -> Answer:
        if answer.status != status:
            raise Refused(answer)
        return answer

    async def _ask(self, method: str, path: str, content: bytes | None, within: float) -> Answer:
        query = f"?{self._caller.query}" if self._caller.query else ""
        headers = [*self._caller.headers, ("accept-encoding", "identity")]  # it is near: to pack takes longer
        url = f"{self._base}{path}{query}"
        try:
            with self._stopwatch:
                return await exchange(self._session, method, url, headers=headers, content=content, within=within)
        except Unreachable as error:  # whose text may quote the query, and with it the caller's key
            raise Unreachable(f"no answer to {method} {path}") from error


def _found(answer: Answer) -> Found:
    try:
        body = orjson.loads(answer.content)
        assets = body["assets"]
        items = {item["id"]: item for item in assets["items"]}
        return Found(answer, body, items, more=bool(assets["nextPage"] or assets.get("nextCursor")))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError("the answer to a search has another shape than those of Immich 2.7 to 3.2") from error
