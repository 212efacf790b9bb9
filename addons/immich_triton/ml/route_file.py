"""``route.toml``, read and written in one place: what is written is always what is read."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from immich_triton.immich.task_types import KNOWN_TYPES
from immich_triton.triton import weights
from immich_triton.triton.pipelines import Parameter, Pipeline

FILE: Final = "route.toml"

ROUTE_KEYS: Final = frozenset({"task", "names", "pipelines", "weights_sha256", "dimension", "untrained"})
PIPELINE_KEYS: Final = frozenset({"name", "types", "models", "parameters", "fingerprint"})
"""What a route file may say of the route, and of each of its pipelines."""


class RouteError(ValueError):
    """A route file or the folder of routes is not usable; says which file, why, and what to do."""


@dataclass(frozen=True, eq=False)
class Route:
    """For which Immich model names of a task, as they are written in the route, which pipelines answer.

    ``dimension`` is the embedding size, 0 where the task has none; ``weights_sha256`` identifies the weights, so that
    the gateway notices when other ones answer under an old name. ``untrained`` marks random weights made for tests.
    ``source`` is the file that it was read from.
    """

    task: str
    names: Sequence[str]
    pipelines: Sequence[Pipeline]
    weights_sha256: str
    dimension: int = 0
    untrained: bool = False
    source: Path = Path(FILE)

    @property
    def folder(self) -> str:
        """The name of its folder in the model repository, by which the supervisor of an embedded Triton knows it."""
        return self.source.parent.name

    def pipeline(self, type_: str) -> Pipeline:
        """Return the pipeline that answers *type_*; a valid route has one for every type of its task."""
        return next(pipeline for pipeline in self.pipelines if type_ in pipeline.types)


def route_files(models: Path) -> list[Path]:
    """Return the route files below *models*, in a fixed order."""
    return sorted(models.glob(f"[!.]*/{FILE}"))


def read_route(path: Path) -> Route:
    """Read a route file. Raises `RouteError`.

    The fingerprints that a CLIP route of an older export lacks are taken from beside the encoders, where they are here.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return _route(raw, path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, RouteError) as error:
        raise RouteError(f"{path}: {error}. Run its export script again, or remove the folder.") from error


def write_route(folder: Path, route: Route) -> Path:
    """Write ``folder/route.toml`` and return its path. Raises `RouteError` for a route that would not be read."""
    path, text = folder / FILE, _toml(route)
    _route(tomllib.loads(text), path)
    path.write_text(text, encoding="utf-8")
    return path


def _toml(route: Route) -> str:
    lines = [
        "# Written by the export script; the gateway reads it. See triton_models/README.md.",
        f"task = {_value(route.task)}",
        f"names = {_value(list(route.names))}",
        f"weights_sha256 = {_value(route.weights_sha256)}",
    ]
    if route.dimension:
        lines.append(f"dimension = {route.dimension}")
    if route.untrained:
        lines.append("untrained = true")
    for pipeline in route.pipelines:
        lines += [
            "",
            "[[pipelines]]",
            f"name = {_value(pipeline.name)}",
            f"types = {_value(list(pipeline.types))}",
            f"models = {_value(list(pipeline.models))}",
        ]
        if pipeline.parameters:
            pairs = ", ".join(f"{_key(key)} = {_value(value)}" for key, value in pipeline.parameters.items())
            lines.append(f"parameters = {{ {pairs} }}")
        if pipeline.fingerprint is not None:
            lines.append(f"fingerprint = {pipeline.fingerprint}")
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Parameter | list[str]) -> str:
    # A JSON string, number, bool or list of these is also a TOML value, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _route(raw: Mapping[str, Any], path: Path) -> Route:
    if unknown := raw.keys() - ROUTE_KEYS:
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
