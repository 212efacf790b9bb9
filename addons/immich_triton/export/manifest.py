"""The hashes of a model repository's files, in the format of ``sha256sum``: they travel with an archive of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from immich_triton.export.repository import sha256

FILE: Final = "models.sha256"
"""Beside the models; ``sha256sum -c models.sha256`` understands it."""

LONGEST: Final = 1 << 20
"""Bytes; a repository has some dozens of files."""

_LINE: Final = re.compile(r"([0-9a-f]{64})  (\S.*)")

_MODEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class ManifestError(ValueError):
    """The list of hashes is not usable; says why."""


def model_folders(models: Path) -> list[Path]:
    """Return the folders of *models* that are models, in a fixed order: such as begin with a dot are in the making."""
    return sorted(folder for folder in models.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files of a model, in a fixed order, without what Python compiled and what is hidden."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            yield path


def check_name(name: str) -> str:
    """Return *name* when it names a file below a model's folder. Raises `ManifestError` for any other path."""
    path = PurePosixPath(name)
    parts = path.parts
    usable = (
        len(parts) >= 2
        and not path.is_absolute()
        and "\\" not in name
        and "\0" not in name
        and str(path) == name
        and not any(part.startswith(".") for part in parts)
        and _MODEL.fullmatch(parts[0])
    )
    if not usable:
        raise ManifestError(f"{name!r} is no path of a model's file")
    return name


def written(hashes: Mapping[str, str]) -> str:
    """Return the text of the file."""
    return "".join(f"{digest}  {check_name(name)}\n" for name, digest in sorted(hashes.items()))


def parsed(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path below the repository. Raises `ManifestError`."""
    hashes: dict[str, str] = {}
    for line in text.splitlines():
        if not (found := _LINE.fullmatch(line)):
            raise ManifestError(f"{line[:80]!r} in {FILE} is no line of sha256sum")
        if check_name(found[2]) in hashes:
            raise ManifestError(f"{FILE} names {found[2]} twice")
        hashes[found[2]] = found[1]
    return hashes


def changed_files(models: Path) -> dict[str, Literal["changed", "missing"]] | None:
    """Return what differs from the hashes beside *models*; None where there are none.

    Raises `ManifestError` or OSError.
    """
    path = models / FILE
    if not path.is_file():
        return None
    found: dict[str, Literal["changed", "missing"]] = {}
    for name, digest in parsed(path.read_text(encoding="utf-8")).items():
        file = models / name
        if not file.is_file():
            found[name] = "missing"
        elif sha256(file) != digest:
            found[name] = "changed"
    return found
