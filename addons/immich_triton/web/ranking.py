"""From Immich's two searches to one list: the photos by picture, those by text, and their fusion."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from immich_triton.immich.api import METADATA, SMART, Unreachable
from immich_triton.web import fusion
from immich_triton.web.failopen import brief
from immich_triton.web.immich import Found, Immich, Refused
from immich_triton.web.pages import Ranked
from immich_triton.web.question import Question
from immich_triton.web.relevance import by_api
from immich_triton.web.relevance.score import GOOD

if TYPE_CHECKING:
    from immich_triton.web.service import Service

logger = logging.getLogger(__name__)

READING: Final = 0.8
"""Share of the time of the text side after which no further texts are read."""

UNREAD: Final = 1e-6
"""The score of a text that was not read: Immich found it, so it comes before one in which nothing was found."""


class NotUnderstood(Exception):  # noqa: N818 - not our fault, and nobody sees it
    """The Immich behind us does not know the shape of the search that it is asked."""


class Texts(NamedTuple):
    """The answers to the searches by text, that for the words as typed first, and the scores of what they found."""

    found: list[Found]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """A list, the photos that stand in it as Immich shows them to this caller now, and the answer they came in."""

    ranked: Ranked
    items: Mapping[str, Any]
    found: Found


class Ranking:
    """One search of one caller."""

    def __init__(self, service: Service, immich: Immich, question: Question) -> None:
        self._service = service
        self._settings = service.settings
        self.immich = immich
        self.question = question
        self._depth = max(self._settings.depth, question.size)

    async def rank(self) -> Outcome:
        """Make the list. Raises `Refused` and `Unreachable` for Immich's own searches, `NotUnderstood`."""
        if self.question.kind == "text":
            found = await self._text_searches(self._depth)
            return self._by_text(Texts(found, await self._scores(_items(found), self._settings.ocr_timeout)))
        picture, texts = await self._both(self._with_scores(), self._depth)
        if picture is None:
            assert texts  # noqa: S101 - narrows a type: one of the two is there
            return self._by_text(texts)
        return self._fused(picture, texts or Texts([], {}))

    async def again(self, ranked: Ranked) -> Outcome:
        """Fetch the photos of a list that was made before. Raises like `rank`."""
        if self.question.kind == "text":
            found = await self._text_searches(ranked.depth)
        else:
            picture, texts = await self._both(self._without_scores(ranked.depth), ranked.depth)
            found = [one for one in (picture, *(texts.found if texts else ())) if one]
        return Outcome(ranked, _items(found), found[0])

    async def nothing(self) -> Found:
        """Let Immich look at login and filters, for a search that finds nothing. Raises like `rank`."""
        return await self.immich.search(METADATA, self.question.metadata(None, size=1))

    def _by_text(self, texts: Texts) -> Outcome:
        items, typed = _items(texts.found), texts.found[0]
        ids = sorted(items, key=lambda photo: -texts.scores.get(photo, UNREAD))
        return Outcome(Ranked(tuple(ids), self._depth, METADATA if typed.more else ""), items, typed)

    async def _text_searches(self, size: int) -> list[Found]:
        """Search for the words as they were typed and, if that can be told, in the other Chinese script."""
        texts = self._service.chinese.spellings(self.question.text)
        typed, *others = await asyncio.gather(
            *(self.immich.search(METADATA, self.question.metadata(text, size=size)) for text in texts),
            return_exceptions=True,
        )
        if isinstance(typed, BaseException):
            raise typed
        if self.question.structured and not typed.knows_filters:
            raise NotUnderstood
        return [typed, *(other for other in others if not isinstance(other, BaseException))]

    async def _scores(self, photos: Iterable[str], within: float) -> dict[str, float]:
        service, first = self._service, [*photos][: self._settings.ocr_lookups]
        return await by_api.scores(
            self.immich, first, self.question.text, chinese=service.chinese, texts=service.texts, within=within
        )

    async def _with_scores(self) -> Texts:
        began, timeout = time.monotonic(), self._settings.ocr_timeout
        found = await self._text_searches(self._depth)
        left = READING * timeout - (time.monotonic() - began)
        return Texts(found, await self._scores(_items(found), left) if left > 0 else {})

    async def _without_scores(self, depth: int) -> Texts:
        return Texts(await self._text_searches(depth), {})

    async def _both(self, text: Coroutine[Any, Any, Texts], depth: int) -> tuple[Found | None, Texts | None]:
        """Run the search by picture and that by *text* at the same time; None for one that fails.

        Raises `Refused` when the one by picture failed and the other can show nothing in its place.
        """
        by_text = asyncio.create_task(self._in_time(text))
        try:
            return await self.immich.search(SMART, self.question.smart(size=depth)), await by_text
        except Refused as refused:
            # 4xx is about the caller or the request: the same for both. 5xx is the machine learning that is down.
            if refused.answer.status < 500 or not (texts := await by_text) or not _items(texts.found):
                raise
            logger.warning("a search shows photos by their text alone: Immich's smart search failed, is its ML down?")
            return None, texts
        finally:
            by_text.cancel()
            await asyncio.gather(by_text, return_exceptions=True)

    async def _in_time(self, work: Coroutine[Any, Any, Texts]) -> Texts | None:
        """Wait for the side of the text as long as it may take; None, and a line in the log, when it fails."""
        try:
            async with asyncio.timeout(self._settings.ocr_timeout):
                return await work
        except TimeoutError:
            logger.warning(
                "a search is ranked by the picture alone: the side of the text took over %d ms (web_ocr_timeout)",
                1000 * self._settings.ocr_timeout,
            )
        except (Refused, Unreachable, ValueError) as error:
            logger.warning("a search is ranked by the picture alone: the search by text failed: %s", brief(error))
        return None

    def _fused(self, picture: Found, texts: Texts) -> Outcome:
        if self.question.structured and not picture.knows_filters:
            raise NotUnderstood
        scores, items = texts.scores, _items([picture, *texts.found])
        places = {photo: place for place, photo in enumerate(picture.ids)}
        hits = [photo for photo in _items(texts.found) if scores.get(photo, GOOD) >= GOOD]
        if self.question.of_albums:
            # Here the two searches of Immich mean different photos: only those of the search that was asked for.
            hits = [photo for photo in hits if photo in places]
        hits.sort(key=lambda photo: (-scores.get(photo, UNREAD), places.get(photo, len(places))))
        settings = self._settings
        ids = fusion.fuse(
            [fusion.Ranking(picture.ids, settings.clip_weight), fusion.Ranking(hits, settings.ocr_weight)],
            k=settings.rank_constant,
        )
        return Outcome(Ranked(tuple(ids), self._depth, SMART if picture.more else ""), items, picture)


def _items(found: Iterable[Found]) -> dict[str, Any]:
    """Return all photos of several answers, in order, each once. Their JSON is the same in all of them."""
    items: dict[str, Any] = {}
    for one in found:
        for photo, item in one.items.items():
            items.setdefault(photo, item)
    return items
