"""What the addons of one product share: who it is, its settings, who listens, what runs in the background."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any

from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import Observers
from immich_triton.core.request_id import detached


class App[S]:
    """One product as it is loaded, with settings of type *S*; it has none until `configure` of its own set them."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.observers = Observers()
        self.draining = False
        self._settings: S | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_configured(self) -> bool:
        """Whether there ever were valid settings."""
        return self._settings is not None

    @property
    def settings(self) -> S:
        """The settings. Raises `ProtocolError` (503) while there are none."""
        return self.need(self._settings)

    @staticmethod
    def need[T](value: T | None) -> T:
        """Return what there is only with settings. Raises `ProtocolError` (503) while there are none."""
        if value is None:
            raise ProtocolError(503, "immich-triton has no valid configuration; see mitmproxy's log")
        return value

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something in the background until `close`."""
        task = detached(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """Stop what runs in the background."""
        for task in list(self._tasks):
            task.cancel()
