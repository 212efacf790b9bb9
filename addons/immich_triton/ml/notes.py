"""What the gateway writes down about a flow for whoever looks at it later: comments, content views, metrics.

Plain strings in ``flow.metadata``, which mitmproxy saves with a flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from immich_triton.core.timing import HEADER as TIMING
from immich_triton.ml.protocol import KNOWN_TYPES

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow, Response

    from immich_triton.ml.protocol import Entry
    from immich_triton.ml.routes import Route

_ROUTES: Final = "immich_routes"
_FAULT: Final = "immich_fault"
_WRITTEN: Final = "immich_written"
_COMPARISON: Final = "immich_comparison"

LONGEST: Final = 160
"""Characters of an error's text that are kept; the whole of it is in the answer."""

UPSTREAM: Final = "passed through"


def forget(flow: HTTPFlow) -> None:
    """Drop what was written down when the flow was sent before: a replay is another story, told in the same flow.

    One that is loaded from a file comes by here too, but is not live, and keeps its notes.
    """
    if flow.live:
        for name in (_ROUTES, _FAULT, _WRITTEN, _COMPARISON):
            flow.metadata.pop(name, None)


def note_split(flow: HTTPFlow, ours: Iterable[tuple[Route, list[Entry]]], others: Mapping[str, Any]) -> None:
    """Write down which part of a ``/predict`` request is answered by which models, and which part passes through."""
    parts = [f"{_asked(entries)} → {_answering(route, entries)}" for route, entries in ours]
    parts += [f"{_asked_of_others(task, types)} {UPSTREAM}" for task, types in others.items()]
    flow.metadata[_ROUTES] = ", ".join(parts)


def note_fault(flow: HTTPFlow, error: BaseException) -> None:
    """Write down the class of the error that ended a request."""
    flow.metadata[_FAULT] = type(error).__name__


def fell_back(flow: HTTPFlow) -> bool:
    """Whether what is ours was answered by the upstream, by the user's choice, because Triton was away."""
    times = flow.response.headers.get(TIMING, "") if flow.response else ""
    return "upstream;" in times and UPSTREAM not in routes_of(flow)


def note_written(flow: HTTPFlow, response: Response) -> None:
    """Write down an answer that went out behind mitmproxy's back, so that the flow itself has none."""
    flow.metadata[_WRITTEN] = f"{response.status_code} {detail_of(response)}".strip()


def written_of(flow: HTTPFlow) -> str:
    """Return what `note_written` wrote: status and reason; empty when the flow has its answer."""
    return str(flow.metadata.get(_WRITTEN, ""))


def detail_of(response: Response) -> str:
    """Return the reason in an error answer on one line, shortened; empty when it is not in stock's form."""
    try:
        detail = orjson.loads(response.raw_content or b"")["detail"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
    text = " ".join(detail.split()) if isinstance(detail, str) else orjson.dumps(detail).decode()
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"


def note_comparison(flow: HTTPFlow, text: str) -> None:
    """Keep the result of ``immich.compare``, which a person asked for: it does quote texts."""
    flow.metadata[_COMPARISON] = text


def comparison_of(flow: HTTPFlow) -> str:
    """Return what `note_comparison` kept, or nothing."""
    return str(flow.metadata.get(_COMPARISON, ""))


def routes_of(flow: HTTPFlow) -> str:
    """Return what `note_split` wrote; empty when the request did not get that far."""
    return str(flow.metadata.get(_ROUTES, ""))


def fault_of(flow: HTTPFlow) -> str:
    """Return what `note_fault` wrote; empty when nothing went wrong."""
    return str(flow.metadata.get(_FAULT, ""))


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
