"""Scores for the photos that Immich found, from the text that ``GET /api/assets/{id}/ocr`` shows to the caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from immich_triton.immich.api import Unreachable
from immich_triton.web.immich import Refused
from immich_triton.web.recent import Recent
from immich_triton.web.relevance.score import Wanted, readable

if TYPE_CHECKING:
    from immich_triton.web.immich import Immich
    from immich_triton.web.patience import Patience
    from immich_triton.web.relevance.chinese import Chinese

AT_ONCE: Final = 8
"""Texts that are read at the same time: Immich is one process, and others use it too."""

MOST_TEXTS: Final = 20_000


class Texts(Recent[tuple[bytes, str], str]):
    """The text of photos, `readable`, under the key of the caller who may read it and the photo's id."""

    def __init__(self) -> None:
        super().__init__(MOST_TEXTS)


async def scores(
    immich: Immich, photos: Iterable[str], query: str, *, chinese: Chinese, texts: Texts, patience: Patience
) -> dict[str, float]:
    """Return the scores of *photos*, as many as can be read while there is *patience*."""
    wanted, key = Wanted(query, chinese), immich.caller.key
    found: dict[str, float] = {}
    unread = []
    for photo in photos:
        if (text := texts.get((key, photo))) is not None:
            found[photo] = wanted.score(text)
        else:
            unread.append(photo)
    queue = iter(unread)

    async def read() -> None:
        for photo in queue:
            try:
                lines = await immich.lines(photo, within=patience.left)
            except (Refused, Unreachable, ValueError, LookupError, TypeError, AttributeError):
                continue  # without a score it keeps its place among those that Immich found
            text = readable("\n".join(lines), chinese)
            texts.put((key, photo), text)
            found[photo] = wanted.score(text)

    if unread:
        readers = [asyncio.create_task(read()) for _ in range(min(AT_ONCE, len(unread)))]
        try:
            with contextlib.suppress(TimeoutError):
                async with patience.limit():
                    await asyncio.wait(readers)
        finally:
            for reader in readers:
                reader.cancel()
    return found
