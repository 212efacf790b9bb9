"""Addon: has Immich read the text in chosen photos again, or embed them again, and says what became of it.

Immich has such jobs for single photos, but no way to ask for them. They are put into its own queue, once it has shown
with the caller's own credentials that the caller may have them.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.web import respond
from immich_triton.web.at_once import for_each
from immich_triton.web.caller import caller_of
from immich_triton.web.failopen import stock_instead
from immich_triton.web.immich import Refused
from immich_triton.web.reprocessing import tasks
from immich_triton.web.reprocessing.not_possible import NotConfigured, NotPossible
from immich_triton.web.site_notes import note

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Request, Response

    from immich_triton.immich.api import Answer
    from immich_triton.web.account import OrderOutcome
    from immich_triton.web.reprocessing.orders import Orders
    from immich_triton.web.service import Service

logger = logging.getLogger(__name__)

PATIENCE: Final = 30.0
"""Seconds for a call to Immich that shows a right; each takes 10 to 17 milliseconds."""

SAID: Final[Mapping[OrderOutcome, str]] = {
    "queued": "put into Immich's queue",
    "wrong": "a request that is none",
    "refused": "refused by Immich",
    "not_possible": "not possible now",
}


class Reprocess:
    """Nothing is queued before every right has been shown: for the route, and for each photo."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept: Orders | None = None

    async def request(self, flow: HTTPFlow) -> None:
        """Answer an order, or a question about one; all else goes on to Immich."""
        request = flow.request
        if request.stream or flow.response or flow.error:
            return
        try:
            if tasks.is_order(request):
                await self._order(flow)
            elif (asked := tasks.asked_about(request)) is not None:
                note(flow, "what became of a photo that was to be processed again")
                flow.response = await self._tell(request, asked)
        except Refused as refused:
            flow.response = respond.as_sent(request, refused.answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets what stock Immich answers
            stock_instead("order", error, self._service.measurements)

    def running(self) -> None:
        """Say at the start whether the queues are there, not only when somebody wants something."""
        if self._service.settings.redis_url:
            create_task(self._look(), name="look for Immich's queues", keep_ref=True)

    async def _look(self) -> None:
        try:
            version = await (await self._orders()).look()
        except NotPossible as reason:
            logger.warning("photos cannot be processed again: %s", reason)
        else:
            logger.info("photos can be processed again: Immich's queues are there, kept by %s", version)

    def done(self) -> None:
        """Close the connections to Redis."""
        if self._kept is not None:
            create_task(self._kept.close(), name="close the client of Redis", keep_ref=True)
            self._kept = None

    async def _order(self, flow: HTTPFlow) -> None:
        order = tasks.parse(flow.request.raw_content or b"")
        if order is None:
            return
        measurements, name = self._service.measurements, order.task.name
        try:
            flow.response, outcome = await self._answered(flow.request, order)
        except Refused as refused:
            flow.response, outcome = respond.as_sent(flow.request, refused.answer), "refused"
        measurements.ordered(name, outcome, len(order.photos) if outcome == "queued" else 0)
        count = f"{len(order.photos):,} photo{'' if len(order.photos) == 1 else 's'}"
        note(flow, f"{name}: {count}, {SAID[outcome]}")

    async def _answered(self, request: Request, order: tasks.Order) -> tuple[Response, OrderOutcome]:
        immich = self._service.immich(request, caller_of(request))
        # In the order of Immich's own checks: who it is, what he may do, what he asks for, of what.
        seen = await immich.may_start_jobs(within=PATIENCE)
        if order.wrong:
            return respond.error(request, seen, 400, order.wrong), "wrong"
        await for_each(order.photos, lambda photo: immich.may_change(photo, within=PATIENCE))
        try:
            await (await self._orders()).start(immich, order.task, order.photos)
        except NotPossible as reason:
            return _not_possible(request, seen, reason), "not_possible"
        return respond.as_sent(request, seen), "queued"

    async def _tell(self, request: Request, asked: str) -> Response:
        photo = tasks.photo_id(asked) or tasks.NOBODYS
        immich = self._service.immich(request, caller_of(request))
        seen = await immich.may_change(photo, within=PATIENCE)
        try:
            states = await (await self._orders()).states(immich, photo)
        except NotPossible as reason:
            return _not_possible(request, seen, reason)
        return respond.as_json(request, seen, 200, {"assetId": photo, "tasks": states})

    async def _orders(self) -> Orders:
        """Return what holds the connection, made when it is wanted first: its libraries are no use to most."""
        url = self._service.settings.redis_url
        if not url:
            raise NotConfigured("immich_web cannot reach Immich's queues: set web_redis_url to the Redis of Immich")
        if self._kept is None or self._kept.url != url:
            # In a thread: it takes a fifth of a second, in which a page of pictures would wait.
            module = await asyncio.to_thread(importlib.import_module, "immich_triton.web.reprocessing.orders")
            if self._kept is None or self._kept.url != url:
                self.done()
                self._kept = module.Orders(url, self._service.measurements.run_ended)
        return self._kept


def _not_possible(request: Request, seen: Answer, reason: NotPossible) -> Response:
    logger.warning("photos cannot be processed again: %s", reason)
    return respond.error(request, seen, reason.status, str(reason))
