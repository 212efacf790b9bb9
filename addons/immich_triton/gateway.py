"""Addon: answers ``POST /predict`` from Triton, or lets it pass to the stock ML."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mitmproxy.http import Response
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton import upstream
from immich_triton.answers import error_response, json_response
from immich_triton.claims import kind_of, release
from immich_triton.ledger import LedgerError
from immich_triton.notes import note_fault, note_split
from immich_triton.protocol import (
    Entry,
    Form,
    ProtocolError,
    build_form,
    merge,
    parse_entries,
    parse_form,
    parse_task,
    require_payload,
)
from immich_triton.tasks import TASKS
from immich_triton.triton import BadInput, ServerFault, Unavailable

if TYPE_CHECKING:
    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow

    from immich_triton.routes import Route
    from immich_triton.service import Service

logger = logging.getLogger(__name__)

Ours = list[tuple["Route", list[Entry]]]


class Gateway:
    """Whatever happens in here, a request that names a model of ours is answered here."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._work: dict[str, set[asyncio.Task[Response | None]]] = {}

    async def request(self, flow: HTTPFlow) -> None:
        """Answer a ``/predict``, or release it when nothing in it is ours."""
        if kind_of(flow, self._service.id) != "predict" or flow.response or flow.error:
            return
        work = create_task(self._predict(flow), name="predict", keep_ref=True)
        tasks = self._work.setdefault(flow.client_conn.id, set())
        tasks.add(work)
        self._service.track(work)
        try:
            response = await work
        except BaseException as error:  # noqa: BLE001 - mitmproxy forwards the flow of a hook that raises
            note_fault(flow, error)
            response = failure(error)
        finally:
            tasks.discard(work)
            if not tasks:
                self._work.pop(flow.client_conn.id, None)
        if response is None:
            release(flow)
        else:
            flow.response = response

    def client_disconnected(self, client: Client) -> None:
        """Drop the work of a client that is gone; mitmproxy does not cancel a hook."""
        for work in self._work.get(client.id, ()):
            work.cancel("the client is gone")

    async def _predict(self, flow: HTTPFlow) -> Response | None:
        form = parse_form(flow.request.headers.get("content-type", ""), flow.request.raw_content or b"")
        ours, others = self._split(parse_entries(form.entries))
        note_split(flow, ours, others)
        if not ours:
            return None
        require_payload(form)
        within = self._service.settings.query_deadline if form.image is None else self._service.settings.deadline
        try:
            async with asyncio.TaskGroup() as group:
                work = [group.create_task(self._ask_triton(route, entries, form, within)) for route, entries in ours]
                if others:
                    work.append(group.create_task(self._ask_upstream(flow, others, form, within)))
        except BaseExceptionGroup as errors:
            # Any error of one fails the whole, as in stock; the first one is as good as the others.
            raise errors.exceptions[0] from errors
        return json_response(200, merge(task.result() for task in work))

    def _split(self, entries: Mapping[str, Any]) -> tuple[Ours, dict[str, Any]]:
        """Return what a route answers, and what is left for the upstream, as it came."""
        ours: Ours = []
        others: dict[str, Any] = {}
        for task, types in entries.items():
            parsed = parse_task(task, types) if task in TASKS else []
            routes = {self._service.table.find(task, entry.name) for entry in parsed}
            if routes <= {None}:
                if task == "clip":
                    for entry in parsed:
                        self._service.refuse_owned(entry.name)
                others[task] = types
                continue
            (route, *more) = routes
            if more or route is None:
                names = ", ".join(f"{entry.type} {entry.name}" for entry in parsed)
                raise ProtocolError(400, f"The models of task {task} belong together, but not all are ours: {names}")
            ours.append((route, parsed))
        return ours, others

    async def _ask_triton(self, route: Route, entries: list[Entry], form: Form, within: float) -> dict[str, Any]:
        task = TASKS[route.task]
        call = task.call(route, entries, form)
        if route.task == "clip":
            for entry in entries:
                self._service.own(route, entry.name)
        return task.fragment(route, entries, await self._service.triton.infer(call, within))

    async def _ask_upstream(
        self, flow: HTTPFlow, entries: Mapping[str, Any], form: Form, within: float
    ) -> dict[str, Any]:
        content_type, body = build_form(entries, form)
        base = f"{flow.request.scheme}://{flow.request.host}:{flow.request.port}"
        return await upstream.predict(base, content_type, body, within=within)


def failure(error: BaseException) -> Response:
    """Return the answer for whatever went wrong."""
    match error:
        case ProtocolError():
            return error_response(error.status, error.detail)
        case BadInput():
            return error_response(400, f"The image or text cannot be processed: {error}")
        case upstream.UpstreamAnswer():
            return Response.make(error.status, error.body, {"content-type": error.content_type})
        case Unavailable() | LedgerError():
            logger.warning("503: %s", error)
            return error_response(503, str(error))
        case ServerFault():
            logger.error("500: %s", error)
            return error_response(500, str(error))
        case asyncio.CancelledError():
            return error_response(500, f"The request was given up: {error}")
        case _:
            logger.error("500: unexpected error", exc_info=error)
            return error_response(500, f"internal error in the gateway: {error!r}")
