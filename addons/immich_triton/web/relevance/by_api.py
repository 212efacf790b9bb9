"""Scores for the photos that Immich found, from the text that ``GET /api/assets/{id}/ocr`` shows to the caller."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from immich_triton.immich.api import Unreachable
from immich_triton.web.immich import Refused
from immich_triton.web.relevance.score import Wanted, readable

if TYPE_CHECKING:
    from immich_triton.web.immich import Immich
    from immich_triton.web.relevance.chinese import Chinese

AT_ONCE: Final = 8
"""Texts that are read at the same time: Immich is one process, and others use it too."""

KEPT: Final = 600.0
"""Seconds that a text is kept, for the caller who was shown it: who searches once searches again."""

MOST_TEXTS: Final = 20_000


class Texts:
    """The text of photos, `readable`, under the key of the caller who may read it and the photo's id."""

    def __init__(self) -> None:
        self._texts: OrderedDict[tuple[bytes, str], tuple[float, str]] = OrderedDict()

    def get(self, caller: bytes, photo: str) -> str | None:
        """Return a text that was read lately."""
        read, text = self._texts.get((caller, photo), (0.0, None))
        return text if text is not None and time.monotonic() - read <= KEPT else None

    def put(self, caller: bytes, photo: str, text: str) -> None:
        """Keep a text; the oldest goes when there are too many."""
        self._texts.pop((caller, photo), None)
        while len(self._texts) >= MOST_TEXTS:
            self._texts.popitem(last=False)
        self._texts[caller, photo] = time.monotonic(), text


async def scores(
    immich: Immich, photos: Iterable[str], query: str, *, chinese: Chinese, texts: Texts, within: float
) -> dict[str, float]:
    """Return the scores of *photos*, as many as can be read in *within* seconds."""
    wanted, key = Wanted(query, chinese), immich.caller.key
    found: dict[str, float] = {}
    unread = []
    for photo in photos:
        if (text := texts.get(key, photo)) is not None:
            found[photo] = wanted.score(text)
        else:
            unread.append(photo)
    queue = iter(unread)

    async def read() -> None:
        for photo in queue:
            try:
                lines = await immich.lines(photo, within=within)
            except (Refused, Unreachable, ValueError, LookupError, TypeError, AttributeError):
                continue  # without a score it keeps its place among those that Immich found
            text = readable("\n".join(lines), chinese)
            texts.put(key, photo, text)
            found[photo] = wanted.score(text)

    if unread:
        readers = [asyncio.create_task(read()) for _ in range(min(AT_ONCE, len(unread)))]
        try:
            await asyncio.wait(readers, timeout=within)
        finally:
            for reader in readers:
                reader.cancel()
    return found
