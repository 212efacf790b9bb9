"""Which models of a repository Triton should have, and what changed in it."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

PIPELINES = ("ocr", "clip_image", "clip_text", "faces")
"""The project's own pipelines. They do nothing without the ONNX models that a route names."""

URGENCY = ("clip_text", "ocr", "faces")
"""The pipelines for which somebody or something waits, the most urgent one first."""

Fingerprint = tuple[tuple[str, int, int, int], ...]


def wanted_models(models: Path, *, only_routed: bool) -> set[str]:
    """Return the names of the models to load: every folder; with *only_routed* less our pipelines without a route.

    Four pipelines are seven processes and, on two cores, five seconds; so OCR alone starts in half the time.
    """
    names = {folder.name for folder in models.iterdir() if folder.is_dir() and not folder.name.startswith(".")}
    return names - set(PIPELINES) | names & routed_pipelines(models) if only_routed else names


def routed_pipelines(models: Path) -> set[str]:
    """Return the pipelines that a ``route.toml`` names. Whether a route is valid is the gateway's business."""
    return {pipeline for _, pipeline, _ in _routed(models)}


def routes_of(models: Path) -> dict[str, tuple[str, ...]]:
    """Return for each route, by the name of its folder, what Triton needs for it: pipelines and their networks."""
    routes: dict[str, tuple[str, ...]] = {}
    for route, pipeline, networks in _routed(models):
        routes[route] = tuple(dict.fromkeys((*routes.get(route, ()), *sorted(networks), pipeline)))
    return routes


def loading_order(models: Path, wanted: Iterable[str]) -> list[str]:
    """Return *wanted* in the order in which to load them: what a person waits for first.

    That is a search; then come OCR, faces and the rest, of each pipeline its networks first. A pipeline reports ready
    whether its networks are there or not, and asks for none while it loads.
    """
    networks: dict[str, set[str]] = {}
    for _, pipeline, named in _routed(models):
        networks.setdefault(pipeline, set()).update(named)
    urgent = [name for name in URGENCY if name in networks] + sorted(networks.keys() - set(URGENCY))
    order = [model for pipeline in urgent for model in (*sorted(networks[pipeline]), pipeline)]
    left = set(wanted)
    return [model for model in dict.fromkeys([*order, *sorted(left)]) if model in left]


def _routed(models: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Yield each pipeline that a route names after the route, with the networks that the route says it calls."""
    for path in sorted(models.glob("[!.]*/route.toml")):
        try:
            pipelines = tomllib.loads(path.read_text(encoding="utf-8"))["pipelines"]
            route = path.parent.name
            yield from [(route, str(one["name"]), set(map(str, one.get("models", ())))) for one in pipelines]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue


def fingerprint(folder: Path) -> Fingerprint:
    """Return what changes when the model's config or a file of one of its versions changes.

    Raises OSError when a file is there and cannot be looked at.
    """
    found = []
    for path in [folder / "config.pbtxt", *folder.glob("[0-9]*/*")]:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.append((str(path.relative_to(folder)), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


class RepositoryWatch:
    """Tells which models to load or unload because the repository changed, as by an export beside a running server."""

    def __init__(self, models: Path, *, only_routed: bool) -> None:
        self._models = models
        self._only_routed = only_routed
        self._before: dict[str, Fingerprint] = {}
        self._known = self._before = self._look()
        self._routes = self._routes_before = routes_of(models)

    def changes(self) -> dict[str, str]:
        """Return ``load`` or ``unload`` for each model concerned; to be called once a second or so.

        A change is told when nothing changed since the call before, so that nobody loads half of a copied file.
        """
        now, before = self._look(), self._before
        self._before = now
        if now != before or now == self._known:
            return {}
        actions = dict.fromkeys(self._known.keys() - now.keys(), "unload")
        actions |= {name: "load" for name, files in now.items() if self._known.get(name) != files}
        self._known = now
        return actions

    def routes(self) -> dict[str, tuple[str, ...]]:
        """Return the routes, see `routes_of`; like `changes`, once two looks saw the same ones."""
        now, before = routes_of(self._models), self._routes_before
        self._routes_before = now
        if now == before:
            self._routes = now
        return self._routes

    def in_order(self, models: Iterable[str]) -> list[str]:
        """Return *models* in the order in which to load them."""
        return loading_order(self._models, models)

    def _look(self) -> dict[str, Fingerprint]:
        try:
            names = wanted_models(self._models, only_routed=self._only_routed)
            return {name: fingerprint(self._models / name) for name in names}
        except OSError:  # it is being moved, or a network drive is away: nobody has removed the models
            return self._before
