"""Addon: after an outage, asks Immich to run what is missing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, override

from mitmproxy import ctx
from mitmproxy.proxy.mode_specs import ProxyMode

from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import LOST, Observer
from immich_triton.core.redaction import where
from immich_triton.immich.api import QUEUES, AlreadyRunning, Immich, ImmichError
from immich_triton.ml.outages import RUN, Outages
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
        self._unwritten: dict[str, str] = {}
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
            self._mark(self._routed(), "the last run did not end in peace")
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
            self._mark(done.tasks, f"a photo got {done.status}")

    @override
    def refused(self, reason: str, status: int, *, photo: bool = False) -> None:
        """Mark every task when an image may have been refused unread."""
        # Once for a whole crowd: a mark is a look at a file.
        if photo and (now := time.monotonic()) - self._refused_at >= LOOK:
            self._refused_at = now
            self._mark(self._routed(), f"photos may have been refused ({reason}, {status or 'not answered'})")

    def _routed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(route.task for route in self._service.table.routes))

    def _mark(self, tasks: Iterable[str], why: str, *, told: bool = False) -> None:
        # What could not be written is tried again each second: not by every photo, which would wait for the lock.
        marked = self._outages().marks().keys() | self._unwritten.keys()
        new = tuple(task for task in tasks if task in QUEUES and task not in marked)
        try:
            self._outages().mark(new)
        except OSError as error:
            if new and not told:
                logger.error("cannot remember an outage of %s now: %s", ", ".join(new), error)  # noqa: TRY400
            self._unwritten |= dict.fromkeys(new, why)
            return
        for task in new:
            self._unwritten.pop(task, None)
            self._well_since.pop(task, None)
            logger.warning("%s: to be caught up on: %s", task, why)

    def _mark_again(self) -> None:
        """Write what could not be written, because another gateway was writing or the disk was full."""
        for task, why in list(self._unwritten.items()):
            del self._unwritten[task]
            self._mark([task], why, told=True)

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
        marks, now = self._outages().marks(), time.monotonic()
        for task in self._well_since.keys() - marks.keys():
            del self._well_since[task]
        well = [task for task in marks if await self._is_well(task)]
        settled = [task for task in well if now - self._well_since.setdefault(task, now) >= self._pauses.settle]
        if not self._service.settings.api_key:
            self._tell(settled, marks)
            return
        for task in settled:
            if now >= self._not_before.get(task, 0) and time.time() >= self._outages().due(task):
                await self._ask(task, marks[task])

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

    def _tell(self, tasks: list[str], marks: Mapping[str, float]) -> None:
        """Say what a person has to click, once for all that is well again."""
        if tasks:
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(marks[task] for task in tasks)))
            titles = ", ".join(QUEUES[task].title for task in tasks)
            logger.warning(
                "photos sent since %s may be without a result, and Immich does not retry: in Immich click "
                "Administration, Job Queues, Missing for %s (or set immich_api_url and immich_api_key)",
                since,
                titles,
            )
        for task in tasks:
            self._outages().settle(task, marks[task], asked=False)

    async def _ask(self, task: str, since: float) -> None:
        answer, text = await start_missing(self._service.settings.api_url, self._service.settings.api_key, task)
        self._service.observers.catch_up(task, answer)
        if answer == "started":
            # In case that the mark cannot be removed now.
            self._not_before[task] = time.monotonic() + self._pauses.busy
            self._failing.discard(task)
            self._outages().settle(task, since, asked=True)
            logger.warning("%s: Immich runs what is missing in the queue %s", task, QUEUES[task].name)
            return
        self._not_before[task] = time.monotonic() + (self._pauses.busy if answer == "busy" else self._pauses.failed)
        if answer == "failed" and task not in self._failing:
            self._failing.add(task)
            logger.error("%s: cannot ask Immich to run what is missing, trying on: %s", task, text)


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
