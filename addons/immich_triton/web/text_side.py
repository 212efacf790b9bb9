"""The side of the text of one search: what Immich finds by it, what only the database finds, and the scores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from immich_triton.immich.api import METADATA
from immich_triton.web.database import DatabaseFault
from immich_triton.web.immich import Found, Immich
from immich_triton.web.patience import Patience
from immich_triton.web.question import Question
from immich_triton.web.relevance import by_api, by_database
from immich_triton.web.relevance.score import GOOD

if TYPE_CHECKING:
    from immich_triton.web.account import Account
    from immich_triton.web.service import Service

logger = logging.getLogger(__name__)

READING: Final = 0.8
"""Share of the time of the text side (``web_ocr_timeout``) after which no further texts are read, unless the
search by picture takes longer anyway."""

LEISURE: Final = 4.0
"""So many times that time is given to ``ocr:``, which has no other order to fall back to."""


class NotUnderstood(Exception):  # noqa: N818 - not our fault, and nobody sees it
    """The Immich behind us does not know the shape of the search that it is asked."""


class Texts(NamedTuple):
    """The answers to the searches by text, that for the words as typed first, and the scores of what they found.

    *further* photos were found by the database only: each has to be shown by Immich before it is by us. *complete* says
    that every photo with text has its score.
    """

    found: list[Found]
    scores: Mapping[str, float]
    further: tuple[str, ...] = ()
    complete: bool = False


class TextSide:
    """One search of one caller; *depth* is how many photos Immich is asked for."""

    def __init__(self, service: Service, immich: Immich, question: Question, depth: int, account: Account) -> None:
        self._service = service
        self._settings = service.settings
        self._immich = immich
        self._question = question
        self._depth = depth
        self._account = account

    async def scored(self, patience: Patience | None = None) -> Texts:
        """Search and score. Raises like `searched`; TimeoutError too, unless the text is all there is (no patience)."""
        timeout = self._settings.ocr_timeout
        if self._service.database is not None:
            try:
                return await self._by_database(patience or Patience(LEISURE * timeout))
            except DatabaseFault:
                pass  # it is in the log; one level lower
            except TimeoutError:
                if patience and not patience.extended:
                    raise
        found = await self.searched(self._depth)
        self._account.text_from = "api"
        if patience is None or (patience.extended and patience.is_over):
            patience = Patience(timeout)
        return Texts(found, await self._by_api(items_of(found), patience))

    async def searched(self, size: int) -> list[Found]:
        """Search for the words as they were typed and, if that can be told, in the other Chinese script.

        Raises `Refused` and `Unreachable` for the words as typed, `NotUnderstood`.
        """
        texts = self._service.chinese.spellings(self._question.text)
        typed, *others = await asyncio.gather(
            *(self._immich.search(METADATA, self._question.metadata(text, size=size)) for text in texts),
            return_exceptions=True,
        )
        if isinstance(typed, BaseException):
            raise typed
        if self._question.structured and not typed.knows_filters:
            raise NotUnderstood
        return [typed, *(other for other in others if not isinstance(other, BaseException))]

    async def _by_database(self, patience: Patience) -> Texts:
        assert self._service.database is not None  # noqa: S101 - narrows a type
        search = by_database.Search(self._service.database, self._question.text, self._service.chinese, patience)
        finding = asyncio.create_task(self._found_by(search, patience))
        try:
            found = await self.searched(self._depth)
            further, scores = await finding
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)
        items = items_of(found)
        scores = scores | await search.scores([photo for photo in items if photo not in scores])
        hits = [photo for photo in further if photo not in items and scores.get(photo, 0) >= GOOD]
        hits.sort(key=lambda photo: -scores[photo])
        self._account.text_from = "database"
        return Texts(found, scores, tuple(hits), complete=True)

    async def _found_by(self, search: by_database.Search, patience: Patience) -> tuple[list[str], dict[str, float]]:
        """Return what only the database may have found, and its scores: most often Immich's own search takes longer."""
        if not self._question.can_name:
            return [], {}  # nothing could be proven
        user = await self._service.user(self._immich, within=patience.left)
        try:
            photos = await search.find(user)
        except TimeoutError:
            logger.warning("a search shows only what Immich's own found: the database took too long to look for more")
            return [], {}
        return photos, await search.scores(photos)

    async def _by_api(self, photos: Iterable[str], patience: Patience) -> dict[str, float]:
        service, first = self._service, [*photos][: self._settings.ocr_lookups]
        if patience.is_over:
            return {}
        return await by_api.scores(
            self._immich, first, self._question.text, chinese=service.chinese, texts=service.texts, patience=patience
        )


def items_of(found: Iterable[Found]) -> dict[str, Any]:
    """Return all photos of several answers, in order, each once. Their JSON is the same in all of them."""
    items: dict[str, Any] = {}
    for one in found:
        for photo, item in one.items.items():
            items.setdefault(photo, item)
    return items
