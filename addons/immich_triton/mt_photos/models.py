"""Which of the routed models answers MT-Photos, whose requests name none. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immich_triton.immich.model_names import clean_name
from immich_triton.ml.route_file import RouteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immich_triton.ml.route_file import Route
    from immich_triton.ml.routes import RouteTable
    from immich_triton.mt_photos.settings import Settings

OPTION_OF: Final = {"clip": "mt_photos_clip", "facial-recognition": "mt_photos_faces"}
"""The tasks whose vectors must not mix, and the option that says which model makes them."""

EXPORT_OF: Final = {
    "clip": "immich-triton export clip ViT-B-16",
    "ocr": "immich-triton export ocr",
    "facial-recognition": "immich-triton export faces",
}


class NoModelError(RouteError):
    """Nothing is routed for a task. The others may be asked all the same."""


def choose(table: RouteTable, task: str, wanted: str) -> Route:
    """Return the route of *task* that is *wanted*: by the folder of an encoder, or by an Immich model name.

    Without a wish the only route there is; for OCR, which makes no vectors, the first. Raises `NoModelError` where
    there is none, `RouteError` where it is not known which.
    """
    routes = [route for route in table.routes if route.task == task]
    if not routes:
        if not wanted:
            raise NoModelError(f"no model is routed for {task}; make one: {EXPORT_OF[task]}")
        raise RouteError(f"{OPTION_OF[task]} is {wanted}, but no model is routed for {task}; run {EXPORT_OF[task]}")
    names = ", ".join(route.pipelines[0].models[0] if route.pipelines[0].models else route.names[0] for route in routes)
    if wanted:
        found = [route for route in routes if wanted in _known_as(route) or clean_name(wanted) in _known_as(route)]
        if len(found) == 1:
            return found[0]
        which = "several routes have" if found else "no route has"
        raise RouteError(f"{OPTION_OF[task]} is {wanted}, which {which}; set it to one of {names}")
    if len(routes) > 1 and task in OPTION_OF:
        raise RouteError(
            f"several models are routed for {task}, and MT-Photos does not say which one it asks for: set "
            f"{OPTION_OF[task]} to one of {names}. Vectors of two models must never mix"
        )
    return routes[0]


def chosen(table: RouteTable, task: str, settings: Settings) -> Route:
    """Return the route of *task* that the settings choose. Raises like `choose`."""
    return choose(table, task, {"clip": settings.clip, "facial-recognition": settings.faces}.get(task, ""))


def check(table: RouteTable, settings: Settings) -> None:
    """Raise `RouteError` when the settings leave open which model answers; that one is missing is no error yet."""
    for task in OPTION_OF:
        try:
            chosen(table, task, settings)
        except NoModelError:
            continue


def describe(table: RouteTable, settings: Settings) -> Iterator[str]:
    """Yield a line for each task that is answered, for the log."""
    for task in EXPORT_OF:
        try:
            route = chosen(table, task, settings)
        except RouteError:
            continue
        models = dict.fromkeys(model for pipeline in route.pipelines for model in pipeline.models)
        yield f"{task} by {', '.join(models) or route.names[0]}"


def _known_as(route: Route) -> set[str]:
    models = {model for pipeline in route.pipelines for model in pipeline.models}
    return {*map(clean_name, route.names), *models, route.source.parent.name}
