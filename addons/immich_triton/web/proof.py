"""Whether this caller may see photos that came from elsewhere: Immich decides, in its own search.

``POST /search/metadata`` with the caller's credentials, the caller's filters as they came, and ``id``. Not
``GET /assets/{id}``: that shows archived photos, and those of album members, which a search does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from immich_triton.immich.api import METADATA, Unreachable
from immich_triton.web.immich import Refused

if TYPE_CHECKING:
    from immich_triton.web.immich import Immich
    from immich_triton.web.question import Question

AT_ONCE: Final = 8
"""Questions at the same time: Immich is one process, and others use it too."""

logger = logging.getLogger(__name__)


async def shown(
    immich: Immich, question: Question, photos: Iterable[str], *, within: float, level: int = logging.WARNING
) -> dict[str, Any]:
    """Return those of *photos* that Immich shows, as it shows them, in order; asks one by one, for *within* seconds.

    A line in the log, of *level*, tells of photos about which Immich has not said anything by then: they are not shown.
    """
    asked = list(photos) if question.can_name else []
    queue, items, silent = iter(asked), dict[str, Any](), set(asked)

    async def ask() -> None:
        for photo in queue:
            try:
                # None has less time than all of them: on a busy machine eight at a time may each take long.
                found = await immich.search(METADATA, question.naming(photo), within=within)
            except Unreachable:
                continue
            except (Refused, ValueError):
                silent.discard(photo)
                continue
            silent.discard(photo)
            if photo in found.items:
                items[photo] = found.items[photo]

    if asked:
        askers = [asyncio.create_task(ask()) for _ in range(min(AT_ONCE, len(asked)))]
        try:
            await asyncio.wait(askers, timeout=within)
        finally:
            for asker in askers:
                asker.cancel()
            await asyncio.gather(*askers, return_exceptions=True)
    if silent:
        logger.log(
            level,
            "a search may lack photos: of %d that Immich's own search did not find, %d were not confirmed within %g s",
            len(asked),
            len(silent),
            within,
        )
    return {photo: items[photo] for photo in asked if photo in items}
