"""Who answers what: splits a request between Triton and the upstream, asks both, joins the answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from immich_triton.core.errors import ProtocolError
from immich_triton.core.observer import Timing
from immich_triton.ml import upstream
from immich_triton.ml.protocol import Entry, Form, build_form, merge, parse_task
from immich_triton.ml.tasks import TASKS
from immich_triton.triton.admission import Priority
from immich_triton.triton.inference import ServerFault, Unavailable, WrongWeights
from immich_triton.triton.transport import GARBAGE

if TYPE_CHECKING:
    from immich_triton.ml.route_file import Route
    from immich_triton.ml.service import Service
    from immich_triton.triton.inference import Call

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A task of a request that is ours."""

    route: Route
    entries: list[Entry]


@dataclass(frozen=True)
class Question:
    """What does not differ between the tasks of a request. ``upstream`` is its address, ``ends`` a monotonic time.

    ``timing`` and ``fell_back``, the tasks that the upstream answered in Triton's place, are filled in on the way.
    """

    form: Form
    upstream: str
    ends: float
    timing: Timing
    fell_back: set[str] = field(default_factory=set)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.ends - time.monotonic())


def split(service: Service, entries: Mapping[str, Any]) -> tuple[list[Part], dict[str, Any]]:
    """Return what a route answers, and what is left for the upstream, as it came. Raises `ProtocolError`."""
    ours: list[Part] = []
    others: dict[str, Any] = {}
    for task, types in entries.items():
        parsed = parse_task(task, types) if task in TASKS else []
        routes = {service.table.find(task, entry.name) for entry in parsed}
        if routes <= {None}:
            if task == "clip":
                for entry in parsed:
                    service.refuse_owned(entry.name)
            others[task] = types
            continue
        (route, *more) = routes
        if more or route is None:
            names = ", ".join(f"{entry.type} {entry.spelling}" for entry in parsed)
            raise ProtocolError(400, f"The models of task {task} belong together, but not all are ours: {names}")
        ours.append(Part(route, parsed))
    return ours, others


async def answer(service: Service, ours: list[Part], others: dict[str, Any], question: Question) -> dict[str, Any]:
    """Return the joined answer. Any error of one part fails the whole, as in stock."""
    try:
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(_ask(service, part, question)) for part in ours]
            if others:
                work.append(group.create_task(_ask_upstream(service, others, question)))
    except BaseExceptionGroup as errors:
        # The first one is as good as the others.
        raise errors.exceptions[0] from errors
    return merge(task.result() for task in work)


async def _ask(service: Service, part: Part, question: Question) -> dict[str, Any]:
    """Ask Triton; while it is away, the upstream where the user chose so, and Triton again when that fails too."""
    task = TASKS[part.route.task]
    call = task.call(part.route, part.entries, question.form)
    if call.tensor == "IMAGE":
        bounds = {name: getattr(service.settings, name) for name in task.bounds}
        call = replace(call, parameters={**call.parameters, **bounds})
    if task.name == "clip":
        for entry in part.entries:
            service.ownership.refuse_other_weights(part.route, entry.name)
    if task.name in service.settings.fallback_tasks:
        try:
            return await _ask_triton(service, part, call, question, patient=False)
        except Unavailable as reason:
            try:
                return await _fall_back(service, part, question, reason)
            except (ProtocolError, upstream.UpstreamAnswer) as error:
                logger.warning("%s: the stock ML does not answer either: %s", task.name, error)
    fragment = await _ask_triton(service, part, call, question, patient=True)
    if task.name == "clip":
        # Not before it is known to be an answer of these weights.
        for entry in part.entries:
            await service.ownership.own(part.route, entry.name)
    return fragment


async def _ask_triton(service: Service, part: Part, call: Call, question: Question, *, patient: bool) -> dict[str, Any]:
    since = time.monotonic()
    try:
        async with service.supervisor.in_use(part.route.folder, call.pipeline.all_models, question.left):
            question.timing.waited += time.monotonic() - since
            tensors = await service.triton.infer(
                call,
                question.left,
                priority=Priority.IMAGE if call.tensor == "IMAGE" else Priority.QUERY,
                patient=patient,
                timing=question.timing,
            )
        fragment = TASKS[part.route.task].fragment(part.route, part.entries, tensors)
    except WrongWeights as error:
        service.doubts.add(call.pipeline, error)
        raise
    except GARBAGE as error:
        logger.debug("%s answered what cannot be read: %r", call.pipeline.name, error)
        raise ServerFault(f"{call.pipeline.name} answered what cannot be read ({type(error).__name__})") from error
    service.doubts.settle(call.pipeline)
    return fragment


async def _fall_back(service: Service, part: Part, question: Question, reason: Unavailable) -> dict[str, Any]:
    task = part.route.task
    entries = {task: {entry.type: {"modelName": entry.name, "options": entry.options} for entry in part.entries}}
    fragment = await _ask_upstream(service, entries, question)
    logger.warning("%s: answered by the stock ML: %s", task, reason)
    service.observers.fell_back(task)
    question.fell_back.add(task)
    return fragment


async def _ask_upstream(service: Service, entries: Mapping[str, Any], question: Question) -> dict[str, Any]:
    content_type, body = build_form(entries, question.form)
    since = time.monotonic()
    try:
        return await upstream.predict(question.upstream, content_type, body, within=question.left)
    except ProtocolError as error:
        service.observers.upstream_failed(error.status)
        raise
    finally:
        question.timing.at_upstream += time.monotonic() - since
