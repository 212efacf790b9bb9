"""From Immich's two searches to one list: the photos by picture, those by text, and their fusion."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from immich_triton.immich.api import METADATA, SMART, Unreachable
from immich_triton.web import fusion
from immich_triton.web.failopen import brief
from immich_triton.web.immich import PATIENCE, Found, Immich, Refused
from immich_triton.web.pages import Ranked
from immich_triton.web.patience import Patience
from immich_triton.web.proof import shown
from immich_triton.web.question import LARGEST_PAGE, Question
from immich_triton.web.relevance.score import GOOD
from immich_triton.web.text_side import LEISURE, READING, NotUnderstood, Texts, TextSide, items_of

if TYPE_CHECKING:
    from immich_triton.web.account import Account
    from immich_triton.web.service import Service

logger = logging.getLogger(__name__)

CHECKING: Final = 0.25
CHECKING_ALONE: Final = 4.0
"""Seconds in which Immich is asked whether it shows what only the database found: in a smart search, in ``ocr:``."""

UNREAD: Final = 1e-6
"""The score of a text that was not read: Immich found it, so it comes before one in which nothing was found."""


class Sides(Protocol):
    """The side of the text, to be begun with the *patience* of a smart search; None when the text is all there is."""

    def __call__(self, patience: Patience | None) -> Coroutine[Any, Any, Texts]:
        """Return the work of it."""


@dataclass(frozen=True)
class Outcome:
    """A list, the photos that stand in it as Immich shows them to this caller now, and the answer they came in."""

    ranked: Ranked
    items: Mapping[str, Any]
    found: Found


class Ranking:
    """One search of one caller."""

    def __init__(self, service: Service, immich: Immich, question: Question, account: Account) -> None:
        self._service = service
        self._settings = service.settings
        self.immich = immich
        self.question = question
        self._depth = max(self._settings.depth, question.size)
        self.account = account
        self._text = TextSide(service, immich, question, self._depth, account)

    async def rank(self) -> Outcome:
        """Make the list. Raises `Refused` and `Unreachable` for Immich's own searches, `NotUnderstood`."""
        self.account.outcome = "ranked"
        if self.question.kind == "text":
            return await self._by_text(await self._text.scored())
        picture, texts = await self._both(self._text.scored, self._depth)
        if isinstance(picture, Refused):
            return await self._by_text_alone(texts, picture)
        if self.question.kind == "filtered":
            return await self._filtered(picture, texts)
        if texts is None:
            self.account.outcome = "picture_alone"
        return await self._fused(picture, texts or Texts([], {}))

    async def again(self, ranked: Ranked) -> Outcome:
        """Fetch the photos of a list that was made before. Raises like `rank`."""
        self.account.outcome = "kept"
        if self.question.kind == "text":
            found = await self._text.searched(ranked.depth)
        else:
            picture, texts = await self._both(partial(self._without_scores, ranked.depth), ranked.depth)
            found = [*texts.found] if texts else []
            if not isinstance(picture, Refused):
                found.insert(0, picture)
            elif not found:
                raise picture
        return Outcome(ranked, items_of(found), found[0])

    async def nothing(self) -> Found:
        """Let Immich look at login and filters, for a search that finds nothing. Raises like `rank`."""
        self.account.outcome = "empty"
        return await self.immich.search(METADATA, self.question.metadata(None, size=1))

    async def _by_text(self, texts: Texts) -> Outcome:
        typed = texts.found[0]
        items = items_of(texts.found) | await shown(self.immich, self.question, texts.further, within=CHECKING_ALONE)
        ids = sorted(items, key=lambda photo: -texts.scores.get(photo, UNREAD))
        if texts.complete and any(texts.scores.get(photo, 0) >= GOOD for photo in ids):
            # Where there are photos with all of the words, those with half of them are none that was asked for.
            ids = [photo for photo in ids if texts.scores.get(photo, GOOD) >= GOOD]
        self.account.by_text, self.account.further = len(ids), sum(photo in items for photo in texts.further)
        return Outcome(Ranked(tuple(ids), self._depth, METADATA if typed.more else ""), items, typed)

    async def _without_scores(self, depth: int, _patience: Patience | None) -> Texts:
        return Texts(await self._text.searched(depth), {})

    async def _by_text_alone(self, texts: Texts | None, refused: Refused) -> Outcome:
        """Show photos by their text in place of an error of the smart search. Raises that when there is none."""
        outcome = await self._by_text(texts) if texts else None
        if outcome is None or not outcome.ranked.ids:
            raise refused
        self.account.outcome = "text_alone"
        logger.warning("a search shows photos by their text alone: Immich's smart search failed, is its ML down?")
        return outcome

    async def _both(self, text: Sides, depth: int) -> tuple[Found | Refused, Texts | None]:
        """Run the search by picture and that by *text* at the same time; None for a text side that fails.

        That may take ``web_ocr_timeout``; and more while the search by picture goes on, for which one waits anyway.
        Raises `Refused` when that is about the caller or the request: then it holds for both.
        """
        timeout = self._settings.ocr_timeout
        reading = Patience(READING * timeout, most=LEISURE * timeout)
        waiting = Patience(timeout, most=PATIENCE)
        by_text = asyncio.create_task(self._in_time(text(reading), waiting))
        try:
            try:
                picture = await self.immich.search(SMART, self.question.smart(size=depth))
            finally:
                reading.end()
                waiting.end()
            texts = await by_text
        except Refused as refused:
            if refused.answer.status < 500:
                raise
            # It is the machine learning that is down: there is no order of the picture for which time was to be saved.
            texts = await by_text
            return refused, await self._alone(text) if isinstance(texts, TimeoutError) else _or_none(texts)
        finally:
            by_text.cancel()
            await asyncio.gather(by_text, return_exceptions=True)
        if isinstance(texts, TimeoutError):
            logger.warning(
                "a search is ranked by the picture alone: the side of the text took over %d ms (web_ocr_timeout)",
                1000 * self._settings.ocr_timeout,
            )
        elif isinstance(texts, Exception):
            logger.warning("a search is ranked by the picture alone: the search by text failed: %s", brief(texts))
        return picture, _or_none(texts)

    @staticmethod
    async def _in_time(work: Coroutine[Any, Any, Texts], patience: Patience) -> Texts | Exception:
        """Wait for the side of the text as long as it may take; returns what it failed with."""
        try:
            async with patience.limit():
                return await work
        except (TimeoutError, Refused, Unreachable, ValueError) as error:
            return error

    async def _alone(self, text: Sides) -> Texts | None:
        """Run the side of the text again, with the time that ``ocr:`` has; None when it fails."""
        try:
            return await text(None)
        except (TimeoutError, Refused, Unreachable, ValueError):
            return None  # then Immich's own error tells of the fault

    async def _filtered(self, typed: Found, texts: Texts | None) -> Outcome:
        """Make the list of photos by picture, among those with the text: *typed* is Immich's own answer to that.

        In the order of the picture without a filter stands what only another spelling or the database found.
        """
        if self.question.structured and not typed.knows_filters:
            raise NotUnderstood
        self.account.by_picture = len(typed.ids)
        ranked = Ranked(typed.ids, self._depth, SMART if typed.more else "")
        if texts is None:
            self.account.outcome = "picture_alone"
            return Outcome(ranked, typed.items, typed)
        scores = texts.scores
        # What another spelling found as well; what is not in Immich's own answer for the one that was typed.
        spelt = [photo for photo in items_of(texts.found[1:]) if scores.get(photo, 0) >= GOOD]
        others = [photo for photo in dict.fromkeys([*spelt, *texts.further]) if photo not in typed.items]
        items = {**items_of(texts.found), **typed.items}
        unknown = [photo for photo in others if photo not in items]
        items |= await shown(self.immich, self.question, unknown, within=CHECKING_ALONE)
        others = [photo for photo in others if photo in items]
        ids = [*typed.ids]
        if texts.complete and any(scores.get(photo, 0) >= GOOD for photo in (*ids, *others)):
            # Immich is content with half of the words. Where there are photos with all of them, those are not meant.
            ids = [photo for photo in ids if scores.get(photo, GOOD) >= GOOD]
        if others:
            ids = await self._by_picture([*ids, *others], typed)
        self.account.by_text, self.account.further = len(ids), len(others)
        return Outcome(Ranked(tuple(ids), self._depth, ranked.tail), items, typed)

    async def _by_picture(self, photos: list[str], typed: Found) -> list[str]:
        """Return *photos* in the order of the picture, as far as that reaches; then those of *typed*, then others."""
        every = await self.immich.search(SMART, self.question.smart(size=LARGEST_PAGE, text=""))
        places = {photo: place for place, photo in enumerate(every.ids)}
        behind = {photo: len(places) + place for place, photo in enumerate(typed.ids)}
        if self.question.of_albums:
            # Here the two searches of Immich mean different photos: only those of the search that was asked for.
            photos = [photo for photo in photos if photo in places or photo in behind]
        last = len(places) + len(behind)
        return sorted(photos, key=lambda photo: places.get(photo, behind.get(photo, last)))

    async def _fused(self, picture: Found, texts: Texts) -> Outcome:
        if self.question.structured and not picture.knows_filters:
            raise NotUnderstood
        scores, items = texts.scores, items_of([picture, *texts.found])
        places = {photo: place for place, photo in enumerate(picture.ids)}
        hits = [photo for photo in items_of(texts.found) if scores.get(photo, GOOD) >= GOOD]
        hits += texts.further
        if self.question.of_albums:
            # Here the two searches of Immich mean different photos: only those of the search that was asked for.
            hits = [photo for photo in hits if photo in places]
        # Of what is equally good, that which Immich has shown comes first: nothing has to be asked for it.
        hits.sort(key=lambda photo: (-scores.get(photo, UNREAD), places.get(photo, len(places)), photo not in items))
        ranked = self._fuse(picture, hits, frozenset(hits).difference(items))
        until = time.monotonic() + CHECKING
        # A photo that is not shown must not take the place of another, so the rest is fused anew without it.
        while asked := ranked.to_prove(self.question.page, self.question.size):
            proven = await self._shown_by(until, asked)
            items |= proven
            gone = set(asked).difference(proven)
            hits = [photo for photo in hits if photo not in gone]
            ranked = self._fuse(picture, hits, ranked.unproven.difference(asked))
        account = self.account
        account.by_picture = len(picture.ids)
        if account.outcome == "ranked":
            account.by_text = sum(photo in items for photo in hits)
            account.further = sum(photo in items for photo in texts.further)
        return Outcome(ranked, items, picture)

    def _fuse(self, picture: Found, hits: Sequence[str], unproven: frozenset[str]) -> Ranked:
        settings = self._settings
        ids = fusion.fuse(
            [fusion.Ranking(picture.ids, settings.clip_weight), fusion.Ranking(hits, settings.ocr_weight)],
            k=settings.rank_constant,
        )
        return Ranked(tuple(ids), self._depth, SMART if picture.more else "", unproven)

    async def _shown_by(self, until: float, photos: Sequence[str]) -> dict[str, Any]:
        if (left := until - time.monotonic()) <= 0:
            return {}
        # With many photos of other users that is nothing out of the ordinary: what is left out is a better place.
        return await shown(self.immich, self.question, photos, within=left, level=logging.DEBUG)


def _or_none(texts: Texts | Exception) -> Texts | None:
    return None if isinstance(texts, Exception) else texts
