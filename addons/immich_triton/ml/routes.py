"""Which Immich model names are ours: ``triton_models/*/route.toml`` → `RouteTable`.

What no route names passes through; what a route names is never answered by anybody else. Therefore a folder that
cannot be read or a route that is not valid is an error, never an empty table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from immich_triton.ml.protocol import KNOWN_TYPES, clean_name
from immich_triton.triton import weights

Parameter = str | int | bool


class RouteError(ValueError):
    """A route file or the folder of routes is not usable; says which file, why, and what to do."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline model in Triton, the ONNX models that it calls, and the parameters that go with every request.

    ``fingerprint`` is the number by which the encoder's weights are known (`immich_triton.triton.weights`); None where the
    route does not say it.
    """

    name: str
    types: tuple[str, ...]
    models: tuple[str, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    fingerprint: int | None = None

    @property
    def all_models(self) -> tuple[str, ...]:
        """What must be ready in Triton: a pipeline reports ready while a model behind it is not."""
        return (self.name, *self.models)


@dataclass(frozen=True, eq=False)
class Route:
    """For which Immich model names of a task, as they are written in the route, which pipelines answer.

    ``dimension`` is the embedding size, 0 where the task has none. ``untrained`` marks random weights made for tests.
    """

    task: str
    names: tuple[str, ...]
    pipelines: tuple[Pipeline, ...]
    weights_sha256: str
    dimension: int
    untrained: bool
    source: Path

    def pipeline(self, type_: str) -> Pipeline:
        """Return the pipeline that answers *type_*; a valid route has one for every type of its task."""
        return next(pipeline for pipeline in self.pipelines if type_ in pipeline.types)


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
    return RouteTable(tuple(_read(path) for path in sorted(models.glob("[!.]*/route.toml"))))


Look = tuple[tuple[str, int, int, int], ...]


def look(models: Path) -> Look:
    """Return what changes when something is added, removed or rewritten that `load_routes` reads. Raises OSError."""
    found = []
    for name in ("route.toml", weights.RECORD):
        for path in sorted(models.glob(f"[!.]*/{name}")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # it is being replaced: the next look differs
            found.append((str(path), status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)


def _read(path: Path) -> Route:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return _route(raw, path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, RouteError) as error:
        raise RouteError(f"{path}: {error}. Run its export script again, or remove the folder.") from error


def _route(raw: Mapping[str, Any], path: Path) -> Route:
    unknown = raw.keys() - {"task", "names", "pipelines", "weights_sha256", "dimension", "untrained"}
    if unknown:
        raise RouteError(f"unknown key {min(unknown)!r}")
    task = _get(raw, "task", str)
    if task not in KNOWN_TYPES:
        raise RouteError(f"task {task!r} is none of {', '.join(KNOWN_TYPES)}")
    names = _strings(raw, "names")
    if not names:
        raise RouteError("names is empty")
    pipelines = tuple(_pipeline(item) for item in _get(raw, "pipelines", list))
    answered = [type_ for pipeline in pipelines for type_ in pipeline.types]
    if sorted(answered) != sorted(KNOWN_TYPES[task]):
        raise RouteError(f"pipelines must answer each of the types {', '.join(KNOWN_TYPES[task])} once, not {answered}")
    sha256 = _get(raw, "weights_sha256", str)
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise RouteError("weights_sha256 is no SHA-256 in lower-case hex")
    if task == "clip":
        pipelines = tuple(_identified(pipeline, sha256, path.parents[1]) for pipeline in pipelines)
    dimension = _get(raw, "dimension", int, 0)
    return Route(task, names, pipelines, sha256, dimension, _get(raw, "untrained", bool, default=False), path)


def _pipeline(raw: object) -> Pipeline:
    if not isinstance(raw, dict):
        raise RouteError("pipelines must be tables")
    parameters = _get(raw, "parameters", dict, {})
    for key, value in parameters.items():
        if not isinstance(value, str | int | bool):
            raise RouteError(f"parameter {key} must be a string, an integer or a bool")
    fingerprint = raw.get("fingerprint")
    if fingerprint is not None and (type(fingerprint) is not int or not 0 <= fingerprint <= weights.HIGHEST):
        raise RouteError(f"fingerprint must be an integer between 0 and {weights.HIGHEST}")
    return Pipeline(_get(raw, "name", str), _strings(raw, "types"), _strings(raw, "models"), parameters, fingerprint)


def _identified(pipeline: Pipeline, sha256: str, models: Path) -> Pipeline:
    """Take what the route of an older export does not say from the record beside the encoder, where that is here."""
    if pipeline.fingerprint is None:
        return replace(pipeline, fingerprint=weights.recorded(models, pipeline.parameters.get("encoder"), sha256))
    return pipeline


def _get(raw: Mapping[str, Any], key: str, kind: type, default: object = None) -> Any:
    value = raw.get(key, default)
    if not isinstance(value, kind):
        raise RouteError(f"{key} is missing" if value is None else f"{key} must be of type {kind.__name__}")
    return value


def _strings(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = _get(raw, key, list)
    if not all(isinstance(value, str) and value for value in values):
        raise RouteError(f"{key} must be a list of strings")
    return tuple(values)
