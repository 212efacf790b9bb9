"""The searches that are compared: stock's own statement, and ours as it runs in front of Immich, on one PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from immich_triton.immich.api import METADATA, SMART, Answer
from immich_triton.web.account import Account
from immich_triton.web.caller import Caller
from immich_triton.web.database import Database
from immich_triton.web.immich import Found, Immich
from immich_triton.web.question import parse
from immich_triton.web.ranking import Ranking
from immich_triton.web.relevance import chinese
from immich_triton.web.service import Service
from immich_triton.web.settings import Settings
from search_eval.immich_tables import SEARCH, tokens

ME: Final = "00000000-0000-4000-8000-00000000aaaa"

PATIENCE: Final = 60.0
"""Seconds: what is compared is the order, not the time."""


def photo_id(number: int) -> str:
    """Return the id of a photo in the database."""
    return str(UUID(int=number, version=4))


@dataclass
class Stock:
    """Immich's own search by text."""

    connection: asyncpg.Connection
    numbers: Mapping[str, int]
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, statement: str, *parameters: Any) -> list[Mapping[str, Any]]:
        """Run a statement."""
        async with self.one_at_a_time:
            return list(await self.connection.fetch(statement, *parameters))

    async def search(self, query: str) -> list[int]:
        """Return the photos that are found, in order."""
        rows = await self.fetch(SEARCH, UUID(ME), " ".join(tokens(query)))
        return [self.numbers[row["photo"]] for row in rows]


@dataclass
class Ours:
    """The search ``ocr:words`` of the site, with Immich's two answers taken from the same database by `Stock`."""

    stock: Stock
    database: Database | None
    service: Service = field(default_factory=Service)

    def __post_init__(self) -> None:
        self.service.configure(settings())
        self.service.database = self.database
        self.service.chinese = chinese.load()

    async def search(self, query: str) -> list[int]:
        """Return the photos that are found, in order."""
        question = parse(SMART, _body(query), prefix=True, hybrid=True)
        assert question is not None  # noqa: S101 - every query of the set is one for us
        outcome = await Ranking(self.service, StandIn(self.stock), question, Account()).rank()
        return [self.stock.numbers[photo] for photo in outcome.ranked.ids]


class StandIn(Immich):
    """Immich, for the caller whose photos these are: its search is `Stock`, its texts are those of the database."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._caller = Caller((), "", b"", by_link=False)

    async def search(self, route: str, body: Mapping[str, Any], *, within: float = PATIENCE) -> Found:  # noqa: ARG002 - as Immich's
        """Answer like the metadata search: by ``ocr``, or by ``id``."""
        assert route == METADATA  # noqa: S101 - a search by text asks no other
        if "id" in body:
            found = [body["id"]] if body["id"] in self._stock.numbers else []
        else:
            photos = {number: photo for photo, number in self._stock.numbers.items()}
            found = [photos[number] for number in await self._stock.search(body["ocr"])]
        items = {photo: {"id": photo} for photo in found[: body["size"]]}
        return Found(Answer(200, (), b""), {"assets": {}}, items, more=len(found) > len(items))

    async def lines(self, photo: str, *, within: float) -> list[str]:  # noqa: ARG002
        """Return the lines that can be seen."""
        rows = await self._stock.fetch(
            'SELECT text FROM asset_ocr WHERE "assetId" = $1 AND "isVisible" ORDER BY y1', UUID(photo)
        )
        return [row["text"] for row in rows]

    async def user(self, *, within: float) -> str:  # noqa: ARG002
        """Return whose photos these are."""
        return ME


def settings() -> Settings:
    """Return the site's own settings, but for the patience."""
    return Settings(
        ocr_prefix=True,
        hybrid=True,
        depth=300,
        clip_weight=1,
        ocr_weight=1,
        rank_constant=60,
        ocr_timeout=PATIENCE,
        ocr_lookups=60,
        keep_host=True,
        forwarded=True,
        database_url="",
    )


def _body(query: str) -> bytes:
    return orjson.dumps({"query": f"ocr:{query}", "size": 100})
