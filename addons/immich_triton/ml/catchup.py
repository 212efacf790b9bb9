"""Addon: after an outage, asks Immich to run what is missing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, override

from mitmproxy import ctx
from mitmproxy.proxy.mode_specs import ProxyMode

from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import LOST, Observer
from immich_triton.core.redaction import where
from immich_triton.immich.api import QUEUES, AlreadyRunning, Immich, ImmichError
from immich_triton.immich.forced_runs import NOT_FOUND_BY_MISSING
from immich_triton.ml.outages import RUN, Outages, Owed, by_hand, moment, when_asked
from immich_triton.proxy import guard

if TYPE_CHECKING:
    from immich_triton.core.observer import RequestDone
    from immich_triton.ml.service import Service

logger = logging.getLogger(__name__)


LOOK: Final = 1.0
"""Seconds between two looks at the marks."""

Answer = Literal["started", "busy", "failed"]


@dataclass(frozen=True)
class Pauses:
    """Seconds: how long Triton has to be well first, and when to ask again after "already running" or an error."""

    settle: float = 5.0
    busy: float = 30.0
    failed: float = 60.0


class CatchUp(Observer):
    """Marks tasks that got a 5xx; when Triton is well again asks Immich, at most once per outage and task."""

    def __init__(self, service: Service, pauses: Pauses | None = None) -> None:
        self._service = service
        self._pauses = pauses or Pauses()
        self._well_since: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._failing: set[str] = set()
        self._unwritten: dict[str, tuple[str, float | None]] = {}
        self._last_failed: dict[str, float] = {}
        self._told: set[tuple[str, float, str]] = set()
        self._refused_at = -LOOK
        service.observers.subscribe(self)

    def _outages(self) -> Outages:
        # No property: mitmproxy looks at every attribute of an addon, before there are settings.
        return Outages(self._service.settings.state_dir)

    def running(self) -> None:
        """Look at how the last run ended, and begin to look after the marks."""
        try:
            before = self._outages().begin(own_port())
        except OSError as error:
            logger.warning("cannot write the state, so outages are not remembered: %s", error)
            before = None
        configured = bool(self._service.settings.api_key)
        if before and before != RUN:
            # Photos were in it, and one of them may be why it ended: as if they had failed.
            self._mark(self._routed(), "the last run did not end in peace", failed=time.time())
        elif before == "" and configured:
            self._mark(self._routed(), "the gateway was stopped")
        self._service.spawn(self._look(), "look after outages")

    def done(self) -> None:
        """Take note of an end in peace; a reload of the script is none."""
        if ctx.master.should_exit.is_set():
            try:
                self._outages().end(own_port())
            except OSError as error:
                logger.warning("cannot write the state: %s", error)

    @override
    def request_done(self, done: RequestDone) -> None:
        """Mark the tasks of an image request that failed."""
        if done.status >= 500 and done.has_image and done.reason in LOST:
            sent = time.time() - done.seconds
            self._last_failed |= dict.fromkeys(done.tasks, sent)
            self._mark(done.tasks, f"a photo got {done.status}", failed=sent)

    @override
    def refused(self, reason: str, status: int, *, photo: bool = False) -> None:
        """Mark every task when an image may have been refused unread."""
        # Once for a whole crowd: a mark is a look at a file.
        if photo and (now := time.monotonic()) - self._refused_at >= LOOK:
            self._refused_at = now
            why = f"photos may have been refused ({reason}, {status or 'not answered'})"
            # While draining that is nothing that a catch-up could bring about again.
            self._mark(self._routed(), why, failed=None if reason == "draining" else time.time())

    def _routed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(route.task for route in self._service.table.routes))

    def _mark(self, tasks: Iterable[str], why: str, *, failed: float | None = None, told: bool = False) -> None:
        """Mark tasks, see `Outages.mark`, and say so of those that had no mark, unless that was *told*."""
        # What could not be written is tried again each second: not by every photo, which would wait for the lock.
        ours = [task for task in tasks if task in QUEUES]
        tried = tuple(task for task in ours if task not in self._unwritten)
        if failed is not None:  # which is more than a precaution
            self._unwritten |= {task: (why, failed) for task in ours if task in self._unwritten}
        new = [task for task in tried if task not in self._outages().marks()]
        try:
            self._outages().mark(tried, failed=failed)
        except OSError as error:
            if new and not told:
                logger.error("cannot remember an outage of %s now: %s", ", ".join(new), error)  # noqa: TRY400
            self._unwritten |= dict.fromkeys(tried, (why, failed))
            return
        for task in new:
            self._well_since.pop(task, None)
            logger.warning("%s: to be caught up on: %s", task, why)

    def _mark_again(self) -> None:
        """Write what could not be written, because another gateway was writing or the disk was full."""
        for task, (why, failed) in list(self._unwritten.items()):
            del self._unwritten[task]
            self._mark([task], why, failed=failed, told=True)

    async def _look(self) -> None:
        while True:
            try:
                self._mark_again()
                if guard.take_refusals():
                    self._mark(self._routed(), "requests were refused while the script was not loaded")
                await self.attend()
            except (OSError, ProtocolError) as error:
                logger.warning("cannot look after outages now: %s", error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next outage has to be looked after
                logger.error("cannot look after outages now: %s", where(error))  # noqa: TRY400 - nothing is quoted
            await asyncio.sleep(LOOK)

    async def attend(self) -> None:
        """Look at the marks once, and do what is due. Raises OSError when the state cannot be written."""
        owed, now = {one.task: one for one in self._outages().owed()}, time.monotonic()
        for task in self._well_since.keys() - owed.keys():
            del self._well_since[task]
        self._told = {told for told in self._told if told[0] in owed}
        well = [one for one in owed.values() if await self._is_well(one.task)]
        settled = [one for one in well if now - self._well_since.setdefault(one.task, now) >= self._pauses.settle]
        if not self._service.settings.api_key:
            self._tell(settled)
            return
        for one in settled:
            if time.time() < one.due:
                self._say_once(one, "%s: %s; at once: %s", one.task, when_asked(one), by_hand([one.task]))
            elif now >= self._not_before.get(one.task, 0):
                await self._ask(one)

    async def _is_well(self, task: str) -> bool:
        pipelines = [one for route in self._service.table.routes if route.task == task for one in route.pipelines]
        models = [model for pipeline in pipelines for model in pipeline.all_models]
        doubted = self._service.doubts.about(route for route in self._service.table.routes if route.task == task)
        triton = self._service.triton
        well = bool(models) and not doubted and not await triton.not_ready(models, within=LOOK)
        # Half-open is well enough: it takes a request to find out, and without traffic none would come.
        well = well and all(triton.breaker(pipeline).state != "open" for pipeline in pipelines)
        if not well:
            self._well_since.pop(task, None)
        return well

    def _tell(self, owed: list[Owed]) -> None:
        """Say what a person has to click, once for all that is well again."""
        if owed:
            logger.warning(
                "photos sent since %s may be without a result, and Immich does not retry: %s (or set immich_api_url "
                "and immich_api_key)",
                moment(min(one.since for one in owed)),
                by_hand([one.task for one in owed]),
            )
        for one in owed:
            self._warn_of_all(one)
            self._outages().settle(one.task, one.since)

    async def _ask(self, owed: Owed) -> None:
        task, began = owed.task, time.time()
        answer, text = await start_missing(self._service.settings.api_url, self._service.settings.api_key, task)
        self._service.observers.catch_up(task, answer)
        if answer == "started":
            # In case that the mark cannot be removed now.
            self._not_before[task] = time.monotonic() + self._pauses.busy
            self._failing.discard(task)
            self._outages().settle(task, owed.since, asked=began)
            logger.warning("%s: Immich runs what is missing in the queue %s", task, QUEUES[task].name)
            self._warn_of_all(owed)
            if (failed := self._last_failed.get(task, 0.0)) >= began:
                self._mark([task], "a photo failed while Immich was asked", failed=failed)
            return
        self._not_before[task] = time.monotonic() + (self._pauses.busy if answer == "busy" else self._pauses.failed)
        if answer == "busy":
            text = "%s: Immich runs the queue %s already; asked again every %.0f s until it is done"
            self._say_once(owed, text, task, QUEUES[task].name, self._pauses.busy)
            self._warn_of_all(owed)
        elif task not in self._failing:
            self._failing.add(task)
            logger.error("%s: cannot ask Immich to run what is missing, trying on: %s", task, text)

    def _warn_of_all(self, owed: Owed) -> None:
        """Say which photos a run of what is missing does not find, when requests failed: *All* may have been on."""
        if owed.failed and owed.task in NOT_FOUND_BY_MISSING:
            self._say_once(owed, "%s: %s", owed.task, NOT_FOUND_BY_MISSING[owed.task])

    def _say_once(self, owed: Owed, text: str, *values: object) -> None:
        """Log a warning, once for each mark and time that is due."""
        key = owed.task, max(owed.since, owed.due), text
        if key not in self._told:
            self._told.add(key)
            logger.warning(text, *values)


def own_port() -> int:
    """Return the port the gateway listens on: it tells several gateways with one state directory apart."""
    return ProxyMode.parse(ctx.options.mode[0]).listen_port(ctx.options.listen_port) or 0


async def start_missing(url: str, key: str, task: str) -> tuple[Answer, str]:
    """Ask Immich to run what is missing for *task*; return how it went, and what there is to say about it."""
    try:
        await Immich(url, key).start(task, everything=False)
    except AlreadyRunning as error:
        return "busy", str(error)
    except ImmichError as error:
        return "failed", str(error)
    return "started", ""
