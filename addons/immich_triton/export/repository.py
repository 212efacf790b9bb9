"""The Triton model repository as the export scripts write it: folders that appear whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from immich_triton.core.paths import PROJECT
from immich_triton.export.kept_config import complete

SOURCE = PROJECT / "triton_models"
"""Where the pipelines come from, which are part of the project."""


@contextmanager
def new_model(models: Path, name: str) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes ``models/name`` when the block ends well, and vanishes when not.

    Triton never sees half a model: the folder is renamed into place, an older one of that name is replaced.
    """
    with workshop(models, name) as folder:
        fresh = folder / "new"
        (fresh / "1").mkdir(parents=True)
        yield fresh
        target = models / name
        if target.exists():
            target.rename(folder / "old")
        fresh.rename(target)


@contextmanager
def workshop(models: Path, purpose: str) -> Iterator[Path]:
    """Give a temporary folder on the file system of *models*, from where a rename puts things in place.

    It is in the repository itself, which may be a mount point (a volume of a container), under a name with a dot:
    neither our supervisor nor the gateway looks into such a folder.
    """
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{purpose}-", dir=models) as folder:
        yield Path(folder)


def install_pipelines(models: Path, names: Sequence[str]) -> list[str]:
    """Put the project's pipelines into another model repository, or renew them there.

    A ``config.pbtxt`` that somebody edited there stays, completed with the outputs that are new. Returns the pipelines
    that were written: none where all are up to date, or *models* is the project's own repository.
    """
    if models.resolve() == SOURCE:
        return []
    written = []
    for name in names:
        source, target = SOURCE / name, models / name
        shipped = {
            str(path.relative_to(source)): sha256(path)
            for path in sorted(source.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
        before = _installed(target)
        config = target / "config.pbtxt"
        edited = (
            config.read_bytes() if before and config.is_file() and sha256(config) != before.get(config.name) else None
        )
        completed = None if edited is None else complete(edited, (source / config.name).read_bytes())
        # An earlier renewal may have kept a config without completing it.
        if before == shipped and completed == edited and all((target / path).is_file() for path in shipped):
            continue
        with new_model(models, name) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            if completed is not None:
                (folder / config.name).write_bytes(completed)
            (folder / INSTALLED).write_text(json.dumps(shipped, indent=2) + "\n", encoding="utf-8")
        written.append(name)
    return written


INSTALLED = "installed.json"
"""Beside a pipeline that was copied: the SHA-256 of each file as it was shipped."""


def _installed(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / INSTALLED).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def sha256(*paths: Path) -> str:
    """Return the hex SHA-256 of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
