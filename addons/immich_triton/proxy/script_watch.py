"""Brings the script back that mitmproxy has given up, for the guard, which outlives it.

mitmproxy looks at a script every second and loads it anew when its time stamp grows. It never looks again once the file
was gone for a moment, overlooks a file that is put back with an older time, and has no idea what else a script needs.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mitmproxy import ctx
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core.redaction import where

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.addons.script import Script

logger = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two looks, as mitmproxy's own."""

Stamp = tuple[int, int, int]


class ScriptWatch:
    """Watches the last script that was a gateway; *is_live* tells whether it is one now."""

    def __init__(self, is_live: Callable[[], bool]) -> None:
        self._is_live = is_live
        self._is_usable: Callable[[], bool] | None = None
        self._path = ""
        self._file = Path()
        self._stamp: Stamp | None = None
        self._newest = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def knows_one(self) -> bool:
        """Whether a script was watched before."""
        return bool(self._path)

    def watch(self, addon: object) -> None:
        """Watch the script that *addon* came from; nothing when it came from none."""
        script = next((one for one in _scripts() if one.ns and addon in getattr(one.ns, "addons", ())), None)
        if script is None:
            return
        self._path, self._file, self._is_usable = script.path, Path(script.fullpath), None
        self._stamp = self._look()
        self._newest = self._stamp[0] if self._stamp else 0
        if self._task is None:
            self._task = create_task(self._run(), name="watch the script", keep_ref=True)

    def load_again_when(self, is_usable: Callable[[], bool]) -> None:
        """Load the script again as soon as *is_usable*, also when its file does not change."""
        self._is_usable = is_usable

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                self._attend()
            except Exception as error:  # noqa: BLE001 - the guard answers 503 until this succeeds
                logger.error("cannot load %s again, trying on: %s", self._path, where(error))  # noqa: TRY400

    def _attend(self) -> None:
        before, self._stamp = self._stamp, self._look()
        if self._stamp is None:
            return
        is_older = self._stamp != before and self._stamp[0] <= self._newest
        self._newest = max(self._newest, self._stamp[0])
        if self._is_live():
            return
        if self._path not in ctx.options.scripts:
            logger.warning("%s is there again: loading it", self._path)
            self._put_into_options()
        elif is_older or (self._is_usable is not None and self._is_usable()):
            logger.warning("loading %s again", self._path)
            self._is_usable = None
            # A new entry, and not only a new module: mitmproxy may have stopped to look at the old one.
            ctx.options.update(scripts=[one for one in ctx.options.scripts if one != self._path])
            self._put_into_options()

    def _put_into_options(self) -> None:
        ctx.options.update(scripts=[*ctx.options.scripts, self._path])

    def _look(self) -> Stamp | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


def _scripts() -> list[Script]:
    loader: Any = ctx.master.addons.get("scriptloader")
    return list(loader.addons) if loader is not None else []
