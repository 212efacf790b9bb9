"""Many small calls to Immich, a few at a time: it is one process, and others use it too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

AT_ONCE: Final = 8


async def for_each[T](photos: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """Return what *ask* returns for each photo, `AT_ONCE` at a time. The first error ends it, and is raised."""
    queue = iter(photos)
    found: dict[str, T] = {}

    async def work() -> None:
        for photo in queue:
            found[photo] = await ask(photo)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(photos))):
                group.create_task(work())
    except ExceptionGroup as several:
        raise several.exceptions[0] from several
    return found
