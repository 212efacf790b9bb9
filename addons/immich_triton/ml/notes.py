"""What the gateway writes down about a prediction, in words, for people who look at the flow later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from immich_triton.core import flow_state
from immich_triton.immich.task_types import KNOWN_TYPES

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.ml.protocol import Entry
    from immich_triton.ml.route_file import Route

UPSTREAM: Final = "passed through"


def note_split(flow: HTTPFlow, ours: Iterable[tuple[Route, list[Entry]]], others: Mapping[str, Any]) -> None:
    """Write down which part of a ``/predict`` request is answered by which models, and which part passes through."""
    parts = [f"{_asked(entries)} → {_answering(route, entries)}" for route, entries in ours]
    parts += [f"{_asked_of_others(task, types)} {UPSTREAM}" for task, types in others.items()]
    flow_state.ROUTES.set(flow, ", ".join(parts))


def answered_by(flow: HTTPFlow) -> str:
    """Return what answered a ``/predict``, as it came; empty where nothing was written down."""
    routes = flow_state.ROUTES.get(flow)
    away = f", but Triton was away: {UPSTREAM}" if flow_state.FELL_BACK.get(flow) else ""
    return f"{routes or UPSTREAM}{away}" if routes or away else ""


def _asked(entries: list[Entry]) -> str:
    task = entries[0].task
    # Immich asks for both types of the tasks that have two steps: only CLIP's type, and a lone detection, tell more.
    types = "" if len(entries) > 1 else f"/{entries[0].type}"
    return f"{task}{types} {' + '.join(dict.fromkeys(entry.spelling for entry in entries))}"


def _answering(route: Route, entries: list[Entry]) -> str:
    """Name the encoder for CLIP, whose models differ in what they find; the pipeline for all else."""
    pipelines = list(dict.fromkeys(route.pipeline(entry.type) for entry in entries))
    if route.task == "clip":
        return " + ".join(" + ".join(pipeline.models) or pipeline.name for pipeline in pipelines)
    return " + ".join(pipeline.name for pipeline in pipelines)


def _asked_of_others(task: str, types: object) -> str:
    """Name what is asked of another server; whatever it is, its shape is not ours to check."""
    models = types if isinstance(types, dict) else {}
    named = [model["modelName"] for model in models.values() if isinstance(model, dict) and "modelName" in model]
    names = " + ".join(dict.fromkeys(name for name in named if isinstance(name, str)))
    type_ = f"/{next(iter(models))}" if len(models) == 1 and task in KNOWN_TYPES else ""
    return f"{task}{type_} {names}".rstrip()
