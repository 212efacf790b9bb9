"""Which Immich model names are ours: ``triton_models/*/route.toml`` → `RouteTable`.

What no route names passes through; what a route names is never answered by anybody else. Therefore a folder that
cannot be read or a route that is not valid is an error, never an empty table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from immich_triton.immich.model_names import clean_name
from immich_triton.ml.route_file import FILE, Route, RouteError, read_route, route_files
from immich_triton.triton import weights
from immich_triton.triton.pipelines import Pipeline


class RouteTable:
    """All routes, by task and model name; names are compared in their clean form."""

    def __init__(self, routes: tuple[Route, ...] = ()) -> None:
        self.routes = routes
        self._by_name: dict[tuple[str, str], Route] = {}
        for route in routes:
            for name in route.names:
                other = self._by_name.setdefault((route.task, clean_name(name)), route)
                if other is not route:
                    raise RouteError(
                        f"{route.source} and {other.source} both answer {route.task} {name}; remove one of the folders"
                    )

    def find(self, task: str, name: str) -> Route | None:
        """Return the route of a model *name*, however it is spelt, or None: then it is not ours."""
        return self._by_name.get((task, clean_name(name)))

    def pipelines(self) -> Iterator[Pipeline]:
        """Yield every pipeline of every route."""
        for route in self.routes:
            yield from route.pipelines

    def describe(self) -> list[str]:
        """Return a line for each route, for the log and the start-up message."""
        return [
            f"{route.task} {', '.join(route.names)} -> {', '.join(pipeline.name for pipeline in route.pipelines)} "
            f"({', '.join(sorted({model for pipeline in route.pipelines for model in pipeline.models}))})"
            for route in self.routes
        ]


def load_routes(models: Path) -> RouteTable:
    """Read every ``*/route.toml`` below *models*. Raises `RouteError`; an existing folder without routes is fine.

    A folder whose name begins with a dot is one that an export is still filling.
    """
    if not models.is_dir():
        raise RouteError(
            f"the model repository {models} does not exist; set immich_models to the folder that Triton serves, "
            "or make one: immich-triton export ocr --models DIR"
        )
    return RouteTable(tuple(read_route(path) for path in route_files(models)))


Look = tuple[tuple[str, int, int, int], ...]


def look(models: Path) -> Look:
    """Return what changes when something is added, removed or rewritten that `load_routes` reads. Raises OSError."""
    found = []
    for name in (FILE, weights.RECORD):
        for path in sorted(models.glob(f"[!.]*/{name}")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # it is being replaced: the next look differs
            found.append((str(path), status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)
