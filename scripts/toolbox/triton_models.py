"""Which models of a repository Triton should have, and what changed in it."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

PIPELINES = ("ocr", "clip_image", "clip_text", "faces")
"""The project's own pipelines. They do nothing without the ONNX models that a route names."""

Fingerprint = tuple[tuple[str, int, int, int], ...]


def wanted_models(models: Path, *, only_routed: bool) -> set[str]:
    """Return the names of the models to load: every folder; with *only_routed* less our pipelines without a route.

    Four pipelines are nine processes, 0.7 GB and, on two cores, five seconds; so OCR alone starts in half the time.
    """
    names = {folder.name for folder in models.iterdir() if folder.is_dir() and not folder.name.startswith(".")}
    return names - set(PIPELINES) | names & routed_pipelines(models) if only_routed else names


def routed_pipelines(models: Path) -> set[str]:
    """Return the pipelines that a ``route.toml`` names. Whether a route is valid is the gateway's business."""
    routed: set[str] = set()
    for path in models.glob("[!.]*/route.toml"):
        try:
            pipelines = tomllib.loads(path.read_text(encoding="utf-8"))["pipelines"]
            routed |= {pipeline["name"] for pipeline in pipelines}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return routed


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

    def _look(self) -> dict[str, Fingerprint]:
        try:
            names = wanted_models(self._models, only_routed=self._only_routed)
            return {name: fingerprint(self._models / name) for name in names}
        except OSError:  # it is being moved, or a network drive is away: nobody has removed the models
            return self._before
