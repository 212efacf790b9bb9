"""Brings a model repository that an older version of the project wrote up to date, when something starts over it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from immich_triton.export.repository import INSTALLED, install_pipelines, workshop
from immich_triton.ml.route_file import PIPELINE_KEYS, ROUTE_KEYS, Route, read_route, route_files, write_route
from immich_triton.server.triton_models import PIPELINES
from immich_triton.triton import weights


def renew(models: Path) -> list[str]:
    """Renew the pipelines that were copied into *models*, and complete its CLIP routes.

    Returns what was done and what could not be done, a sentence each. Nothing of it stops a start: what Triton answers
    with old pipelines, the gateway judges.
    """
    # A new version of the project brings new pipelines; the repository may be a volume that an older one filled.
    copied = [name for name in PIPELINES if (models / name / INSTALLED).is_file()]
    try:
        renewed = install_pipelines(models, copied)
        return [f"renewed the pipeline {name}" for name in renewed] + add_fingerprints(models)
    except OSError as error:
        return [f"warning: cannot bring {models} up to date: {error}. Make it writable, and start again"]


def add_fingerprints(models: Path) -> list[str]:
    """Write into each CLIP route of *models* the fingerprints that the export recorded beside the encoders.

    A route of an older export has none, and a gateway with a copy of the route alone could not tell whose vectors it
    gets. A route that is not valid is left to the gateway's judgement.
    """
    told = []
    for path in route_files(models):
        try:
            route = _completed(path)
        except _UnknownKeyError as error:
            told.append(
                f"warning: the fingerprints are not added to {path}: {error}. Remove it, or run "
                "immich-triton export clip again, and start again"
            )
            continue
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        if route is None:
            continue
        if any(pipeline.fingerprint is None for pipeline in route.pipelines):
            told.append(
                f"{path} does not say which weights answer, and {weights.RECORD} beside its encoders neither: requests "
                "for it get 503; run immich-triton export clip again"
            )
            continue
        with workshop(models, "route") as folder:
            write_route(folder, route).replace(path)
        told.append(f"added the fingerprints to {path}: copy it to gateways on other machines")
    return told


class _UnknownKeyError(Exception):
    """A route says something that would be lost when it is written again; the text says what."""


def _check_keys(raw: Mapping[str, Any], known: frozenset[str], whose: str) -> None:
    if unknown := raw.keys() - known:
        raise _UnknownKeyError(f"{whose} has the unknown key {min(unknown)!r}")


def _completed(path: Path) -> Route | None:
    """Return the route with what can be found out; None when it lacks nothing. Raises what its reading does."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    if raw["task"] != "clip" or all("fingerprint" in pipeline for pipeline in raw["pipelines"]):
        return None
    _check_keys(raw, ROUTE_KEYS, "the route")
    for pipeline in raw["pipelines"]:
        _check_keys(pipeline, PIPELINE_KEYS, f"the pipeline {pipeline['name']}")
    return read_route(path)
