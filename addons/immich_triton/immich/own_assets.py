"""The photos and videos of the owner of an API key: which there are, whether they have text, jobs for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Self, override
from urllib.parse import quote

import aiohttp

from immich_triton.immich.api import JOBS, METADATA, SMART, Immich, ImmichError, text_of

PAGE: Final = 1000
"""The most assets that Immich gives at a time."""
PAGE_OF_SEARCH: Final = 100

VISIBLE: Final = ("timeline", "archive")
"""Where assets lie that an API key can reach and that Immich recognises text in. Each is asked for by its name: what is
found without one differs between 2.7 and 3.1."""

_INSTANT: Final = timedelta(milliseconds=1)
"""What Immich's API shows of a time is cut to this."""

_API: Final = "/api"


class OwnAssets(Immich):
    """As an async context manager it keeps its connections. Raises like `Immich`."""

    whose_key: ClassVar[str] = ""

    def __init__(self, url: str, key: str, *, trust_env: bool = False) -> None:
        super().__init__(url, key, trust_env=trust_env)
        self._kept: aiohttp.ClientSession | None = None
        self._owner = ""

    async def __aenter__(self) -> Self:
        self._kept = aiohttp.ClientSession(trust_env=self._trust_env)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._kept is not None:
            await self._kept.close()

    async def all(self, **filters: object) -> AsyncIterator[str]:
        """Yield the ids of all assets, the newest first, each once."""
        for visibility in VISIBLE:
            async for asset in self._by_date({**filters, "visibility": visibility}):
                yield asset

    async def of_album(self, album: str) -> AsyncIterator[str]:
        """Yield the assets in an album, given by its id or its name."""
        albums = await self._ask("/albums", "album.read") + await self._ask("/albums?shared=true", "album.read")
        ids = {one["id"] for one in albums if album in (one["id"], one["albumName"])}
        if not ids:
            raise ImmichError(f"there is no album {album!r}")
        if len(ids) > 1:
            raise ImmichError(f"{len(ids)} albums are named {album!r}; give the id of one: {', '.join(sorted(ids))}")
        async for asset in self.all(albumIds=[*ids]):
            yield asset

    async def found(self, query: str, limit: int) -> AsyncIterator[str]:
        """Yield the first *limit* assets that a smart search finds."""
        page, number = 1, 0
        while True:
            body = {"query": query, "page": page, "size": PAGE_OF_SEARCH}
            assets = (await self._ask(SMART.removeprefix(_API), "asset.read", body))["assets"]
            for asset in await self._own(assets["items"]):
                if number == limit:
                    return
                number += 1
                yield asset
            if not assets["nextPage"]:
                return
            page = int(assets["nextPage"])

    async def lines(self, asset: str) -> list[str]:
        """Return the lines of text that Immich has recognised in an asset, without those that are cropped away."""
        rows = await self._ask(text_of(asset).removeprefix(_API), "asset.read")
        return [row["text"] for row in rows if row.get("isVisible", True)]

    async def is_found_by(self, line: str, asset: str) -> bool:
        """Return whether Immich's search for text finds an asset by a line of it."""
        for visibility in VISIBLE:
            body = {"id": asset, "ocr": line, "size": 1, "visibility": visibility}
            if (await self._ask(METADATA.removeprefix(_API), "asset.read", body))["assets"]["items"]:
                return True
        return False

    async def start_for(self, assets: Sequence[str], name: str) -> None:
        """Have a job done for *assets*, of all or of none."""
        body = {"assetIds": [*assets], "name": name}
        await self._exchange("POST", JOBS.removeprefix(_API), "job.create and asset.update", body)

    async def outcome(self, asset: str) -> Mapping[str, Any]:
        """Return what immich_web knows of the jobs for an asset, by their names."""
        answer = await self._ask(f"/immich-triton/reprocess/{quote(asset, safe='')}", "asset.update")
        tasks: Mapping[str, Any] = answer["tasks"]
        return tasks

    async def _by_date(self, filters: Mapping[str, object]) -> AsyncIterator[str]:
        """Yield what a search by filters finds, in slices that begin where the one before ended.

        Not by the number of the page: Immich skips as many as there were, so that an asset that comes or goes meanwhile
        would shift all others, and 2.7.5 shuffles those of the same time.
        """
        seen: set[str] = set()
        before, page = "", 1
        while True:
            body = {**filters, "size": PAGE, "page": page, "order": "desc"}
            if before:
                body["takenBefore"] = before
            items = (await self._ask(METADATA.removeprefix(_API), "asset.read", body))["assets"]["items"]
            for asset in await self._own(items):
                if asset not in seen:
                    seen.add(asset)
                    yield asset
            if len(items) < PAGE:
                return
            last = _after(items[-1]["fileCreatedAt"])
            # A whole page of one instant has no earlier one to go on from.
            before, page = (before, page + 1) if last == before else (last, 1)

    async def _own(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """Leave out what partners share, and what others have put into an album."""
        self._owner = self._owner or (await self._ask("/users/me", "user.read"))["id"]
        return [item["id"] for item in items if item["ownerId"] == self._owner]

    @override
    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._kept is not None:
            yield self._kept
        else:
            async with super()._session() as session:
                yield session


def _after(time: str) -> str:
    """Return the instant after *time*, as Immich writes times."""
    after = datetime.fromisoformat(time) + _INSTANT
    return after.isoformat(timespec="milliseconds").replace("+00:00", "Z")
