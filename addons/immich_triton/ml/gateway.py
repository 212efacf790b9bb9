"""Addon: answers ``POST /predict`` from Triton, or lets it pass to the stock ML."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mitmproxy.http import Response
from mitmproxy.utils.asyncio_utils import create_task

from immich_triton.core import flow_state, timing
from immich_triton.core.errors import ProtocolError
from immich_triton.core.flow_state import ByClient
from immich_triton.core.observer import Reason, RequestDone, RouteTaken, Timing
from immich_triton.core.redaction import where
from immich_triton.ml import dispatch, upstream
from immich_triton.ml.ledger import LedgerError
from immich_triton.ml.notes import note_split
from immich_triton.ml.protocol import Form, build_form, is_exact, parse_entries, parse_form, require_payload
from immich_triton.ml.tasks import TASKS
from immich_triton.proxy.answers import error_response, json_response
from immich_triton.proxy.flow_kind import kind_of, release
from immich_triton.proxy.targets import address_of
from immich_triton.triton.inference import BadInput, Refused, ServerFault, Unavailable, WrongWeights

if TYPE_CHECKING:
    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow, Request

    from immich_triton.ml.service import Service

logger = logging.getLogger(__name__)

# It logs every body that it refuses; the answer says so.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class Gateway:
    """Whatever happens in here, a request that names a model of ours is answered here."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._work: ByClient[set[asyncio.Task[Response | None]]] = ByClient(flow_state.WORK, lambda _client: set())

    async def request(self, flow: HTTPFlow) -> None:
        """Answer a ``/predict``, or release it when nothing in it is ours."""
        if kind_of(flow, self._service.id) != "predict" or flow.response or flow.error:
            return
        story = Story()
        work = create_task(self.answer(flow, story), name="predict", keep_ref=True)
        tasks = self._work.of(flow.client_conn)
        if not flow.is_replay:  # whoever replays it waits, though the client that asked at first may just be leaving
            tasks.add(work)
        self._service.track(work)
        try:
            response = await work
        except BaseException as error:  # noqa: BLE001 - mitmproxy forwards the flow of a hook that raises
            flow_state.FAULT.set(flow, type(error).__name__)
            response, story.reason = self.failure(error)
        finally:
            tasks.discard(work)
            if not tasks:
                self._work.pop(flow.client_conn)
        if response is None:
            release(flow)
        else:
            flow.response = response
        done = story.end(response.status_code if response else 0)
        if response is not None:
            timing.announce(response, done)
        logger.info("/predict %s", timing.describe(done))
        self._service.observers.request_done(done)

    def client_disconnected(self, client: Client) -> None:
        """Drop the work of a client that is gone; mitmproxy does not cancel a hook."""
        for work in self._work.get(client) or ():
            work.cancel("the client is gone")

    async def answer(self, flow: HTTPFlow, story: Story) -> Response | None:
        """Return the answer to a prediction, None to release it; fill in *story*. Raises what `failure` takes.

        Another product that asks the same Triton answers in its own words here, and in `failure`.
        """
        settings = self._service.settings
        form = parse_form(content_type_of(flow.request), flow.request.raw_content or b"", max_parts=settings.max_parts)
        entries = parse_entries(form.entries)
        # A photo that is refused before it is known whose it is has to be caught up on too.
        story.tasks, story.has_image = tuple(task for task in entries if task in TASKS), form.image is not None
        await self._service.settled()
        ours, others = dispatch.split(self._service, entries)
        note_split(flow, ((part.route, part.entries) for part in ours), others)
        story.tasks = tuple(part.route.task for part in ours)
        if not ours:
            make_exact(flow.request, form, entries)
            story.route, story.reason = "upstream", "released"
            return None
        story.route = "split" if others else "triton"
        require_payload(form)
        within = settings.deadline if story.has_image else settings.query_deadline
        question = dispatch.Question(form, address_of(flow.request), story.began + within, story.timing)
        answer = await dispatch.answer(self._service, ours, others, question)
        if question.fell_back:
            flow_state.FELL_BACK.set(flow, True)
            story.fell_back = tuple(sorted(question.fell_back))
        return json_response(200, answer)

    def failure(self, error: BaseException) -> tuple[Response, Reason]:
        """Return the answer for whatever went wrong, and the word for it (`RequestDone.reason`)."""
        return failure(error)


def content_type_of(request: Request) -> str:
    """Return the Content-Type. Raises `ProtocolError` (400) when there are several: each parser takes another one."""
    values = request.headers.get_all("content-type")
    if len(values) > 1:
        raise ProtocolError(400, f"The request has {len(values)} Content-Type headers; send one")
    return values[0] if values else ""


def make_exact(request: Request, form: Form, entries: Mapping[str, Any]) -> None:
    """See to it that the upstream, whatever its parser, sees in *request* what we saw, and nothing else.

    A body that every parser reads alike stays as it is, byte for byte; another one is built anew from what we
    understood. Raises `ProtocolError` (400) when it cannot be.
    """
    if "content-encoding" not in request.headers and is_exact(form):
        return
    content_type, body = build_form(entries, form)
    request.headers["content-type"] = content_type
    request.headers["content-length"] = str(len(body))
    request.headers.pop("content-encoding", None)
    request.raw_content = body


class Story:
    """What becomes of one request, for the observers."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.timing = Timing()
        self.tasks: tuple[str, ...] = ()
        self.route: RouteTaken = "none"
        self.has_image = False
        self.reason: Reason = "ok"
        self.fell_back: tuple[str, ...] = ()

    def end(self, status: int) -> RequestDone:
        """Return the whole of it, once the answer is known."""
        seconds = time.monotonic() - self.began
        kind = self.tasks, self.route, self.has_image
        return RequestDone(*kind, status, self.reason, seconds, self.timing, self.fell_back)


def failure(error: BaseException) -> tuple[Response, Reason]:
    """Return the answer for whatever went wrong, and the word for it (`RequestDone.reason`)."""
    match error:
        case ProtocolError():
            reason: Reason = (
                "protocol" if error.status < 500 else "configuration" if error.status == 503 else "upstream"
            )
            return error_response(error.status, error.detail), reason
        case BadInput():
            return error_response(400, f"The image or text cannot be processed: {error}"), "bad_input"
        case upstream.UpstreamAnswer():
            return Response.make(error.status, error.body, {"content-type": error.content_type}), "upstream"
        case Unavailable():
            logger.warning("503: %s", error)
            return error_response(503, str(error)), "unavailable"
        case LedgerError():
            logger.error("503: %s", error)
            return error_response(503, str(error)), "ledger"
        case Refused():
            logger.error("503: %s", error)
            return error_response(503, str(error)), "refused_by_triton"
        case WrongWeights():
            logger.error("503: %s", error)
            return error_response(503, str(error)), "weights"
        case ServerFault():
            logger.error("500: %s", error)
            return error_response(500, str(error)), "server_fault"
        case asyncio.CancelledError():
            return error_response(500, f"The request was given up: {error}"), "client_gone"
        case _:
            logger.error("500: unexpected error: %s", where(error))
            logger.debug("500: unexpected error", exc_info=error)
            return error_response(500, f"internal error in the gateway: {error!r}"), "internal"
