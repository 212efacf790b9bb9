"""One page of a search: from the list that is kept, with its photos asked for anew."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from immich_triton.immich.api import SMART
from immich_triton.web.pages import MOST_STOCK_PAGES, Ranked
from immich_triton.web.proof import shown
from immich_triton.web.respond import page_of

if TYPE_CHECKING:
    from mitmproxy.http import Request, Response

    from immich_triton.web.immich import Found
    from immich_triton.web.lists import Lists
    from immich_triton.web.ranking import Outcome, Ranking

logger = logging.getLogger(__name__)

MOST_SINGLE: Final = 200
"""Photos of a page that are asked for one by one: the searches do not hold them any more, or never did."""

SINGLE_TIMEOUT: Final = 4.0
"""Seconds for all of them."""


class Pager:
    """Takes the list of a search from *lists*, or has it made by *ranking* and puts it there."""

    def __init__(self, lists: Lists, ranking: Ranking) -> None:
        self._lists = lists
        self._ranking = ranking
        self._question = ranking.question
        self._size = ranking.question.size
        self._key = ranking.immich.caller.key + ranking.question.key()

    async def answer(self, request: Request) -> Response:
        """Return the page that *request* asks for. Raises what `Ranking.rank` raises."""
        if self._question.kind == "nothing":
            return page_of(request, await self._ranking.nothing(), [], None)
        outcome = await self._outcome()
        number = self._question.page
        items: Sequence[Any] = []
        while not items:
            outcome = await self._proven(outcome, number)
            if number > outcome.ranked.pages(self._size):
                break
            items = await self._present(outcome, outcome.ranked.cut(number, self._size))
            number += 1
        if items:
            return page_of(request, outcome.found, items, await self._next(outcome, number))
        number, items, found = await self._behind(outcome.ranked, number)
        more = found is not None and found.more
        following = await self._next(outcome, number + 1) if more else None
        return page_of(request, found or outcome.found, items, following)

    async def _outcome(self) -> Outcome:
        page = self._question.page
        if page > 1 and (kept := self._lists.get(self._key)):
            return await self._ranking.again(kept)
        if page > 1:
            logger.warning(
                "page %d of a search whose list is not kept any more, after 10 minutes or 1,000 newer ones: it is "
                "ranked anew, and a photo may come twice or not at all",
                page,
            )
        outcome = await self._ranking.rank()
        self._keep(outcome.ranked)
        return outcome

    def _keep(self, ranked: Ranked) -> None:
        if not self._question.structured:
            self._lists.put(self._key, ranked)

    async def _proven(self, outcome: Outcome, page: int) -> Outcome:
        """Ask Immich about what is unproven up to *page*, so that neither this page nor one before it changes again."""
        ranked, items = outcome.ranked, dict(outcome.items)
        while asked := ranked.to_prove(page, self._size):
            # What one of Immich's own searches has shown for this very page needs no question.
            unknown = [photo for photo in asked if photo not in items]
            items |= await shown(self._ranking.immich, self._question, unknown, within=SINGLE_TIMEOUT)
            ranked = ranked.proven(asked, items)
        if ranked is outcome.ranked:
            return outcome
        self._keep(ranked)
        return replace(outcome, ranked=ranked, items=items)

    async def _present(self, outcome: Outcome, ids: Sequence[str]) -> list[Any]:
        """Return the photos of *ids* that this caller may still see with these filters, in order."""
        missing = [photo for photo in ids if photo not in outcome.items][:MOST_SINGLE]
        items = {
            **outcome.items,
            **await shown(self._ranking.immich, self._question, missing, within=SINGLE_TIMEOUT),
        }
        return [items[photo] for photo in ids if photo in items]

    async def _next(self, outcome: Outcome, number: int) -> int | None:
        """Return the number of the next page, if anything stands on one: an empty page is a failure to the app."""
        if self._question.structured:
            return None
        if outcome.ranked.unproven.issuperset(outcome.ranked.cut(number, self._size)):
            outcome = await self._proven(outcome, number)
        ranked = outcome.ranked
        if number <= ranked.pages(self._size):
            return number
        number, items, _ = await self._behind(ranked, number)
        return number if items else None

    async def _behind(self, ranked: Ranked, number: int) -> tuple[int, list[Any], Found | None]:
        """Return the first page from *number* on, behind the list, that has anything new on it, and Immich's answer."""
        shown, found = set(ranked.ids), None
        for page in range(number, number + MOST_STOCK_PAGES):
            if not ranked.tail or self._question.structured or (found and not found.more):
                break
            stock = ranked.stock_page(page, self._size)
            if ranked.tail == SMART:
                body = self._question.smart(size=self._size, page=stock)
            else:
                body = self._question.metadata(self._question.text, size=self._size, page=stock)
            found = await self._ranking.immich.search(ranked.tail, body)
            if items := [item for photo, item in found.items.items() if photo not in shown]:
                return page, items, found
        return number, [], None
