"""A model repository in one file, to be moved to another machine: a tar whose first member is the list of hashes.

It is restored as a whole or not at all, and nothing of it is believed: neither names nor types nor contents.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from immich_triton.export import manifest
from immich_triton.export.manifest import ManifestError
from immich_triton.export.repository import INSTALLED, SOURCE, install_pipelines, sha256, workshop
from immich_triton.ml.route_file import FILE as ROUTE

CHUNK: Final = 1 << 20

KEPT_FREE: Final = 64 << 20
"""Bytes that a disk must have left beside what is unpacked."""


class ArchiveError(ValueError):
    """An archive cannot be written or restored; says why, and what to do."""


def archive(models: Path, target: Path) -> dict[str, str]:
    """Write the repository *models* to *target*, compressed where that ends with ``gz``; return the hash of each file.

    The file appears whole. Raises `ArchiveError` or OSError.
    """
    contents: dict[str, Path | bytes] = {}
    for folder in manifest.model_folders(models):
        contents |= {f"{folder.name}/{path.relative_to(folder).as_posix()}": path for path in manifest.files_of(folder)}
        if (own := _as_installed(folder)) is not None:
            contents[f"{folder.name}/{INSTALLED}"] = own
    if not contents:
        raise ArchiveError(f"{models} holds no model; give the folder that Triton serves (--models DIR)")
    hashes = {name: _digest(content) for name, content in contents.items()}
    list_of_hashes = manifest.written(hashes).encode()
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w|gz" if target.name.endswith("gz") else "w|") as tar:
                _add(tar, manifest.FILE, io.BytesIO(list_of_hashes), len(list_of_hashes))
                for name, content in contents.items():
                    _add_checked(tar, name, content, hashes[name])
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return hashes


def _as_installed(folder: Path) -> bytes | None:
    """Return what a pipeline of a clone lacks: the list of its files as shipped, by which an edited config is known."""
    source = SOURCE / folder.name
    if (folder / INSTALLED).exists() or not (source / "1/model.py").is_file():
        return None
    shipped = {path.relative_to(source).as_posix(): sha256(path) for path in manifest.files_of(source)}
    return (json.dumps(shipped, indent=2) + "\n").encode()


def _digest(content: Path | bytes) -> str:
    return sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def _add_checked(tar: tarfile.TarFile, name: str, content: Path | bytes, digest: str) -> None:
    opened = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
    with opened as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        reader = _Hashing(file)
        try:
            _add(tar, name, reader, size)
        except OSError as error:
            raise ArchiveError(f"{name} cannot be archived: {error}") from error
    if reader.hexdigest() != digest:
        raise ArchiveError(f"{name} changed while it was archived, as by an export; archive again when that is done")


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes] | _Hashing, size: int) -> None:
    # Neither owner nor time: equal repositories make equal archives.
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    tar.addfile(member, file)


class _Hashing:
    """Hashes what is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, count: int = -1, /) -> bytes:
        data = self._file.read(count)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def restore(source: Path, models: Path, *, replace: bool = False) -> list[str]:
    """Restore the archive *source* into the repository *models*; return the models that were written.

    All are verified before the first appears; if one cannot be put in its place, those before it are taken back. Models
    that are there already are refused unless *replace*; a pipeline of this very project is left as it is here. Raises
    `ArchiveError` or OSError.
    """
    with workshop(models, "restore") as folder:
        new, old = folder / "new", folder / "old"
        new.mkdir()
        old.mkdir()
        try:
            hashes = _unpack(source, new)
        except (tarfile.TarError, EOFError, ManifestError, UnicodeDecodeError) as error:
            raise ArchiveError(
                f"{source} cannot be restored: {error}. Nothing was written; archive it again"
            ) from error
        names = [one.name for one in manifest.model_folders(new)]
        pipelines = [name for name in names if (SOURCE / name / "1/model.py").is_file()]
        there = [name for name in names if (models / name).exists()]
        kept = [name for name in there if name in pipelines]
        if (taken := [name for name in there if name not in pipelines]) and not replace:
            raise ArchiveError(
                f"{models} has {', '.join(taken)} already; nothing was written. --replace puts the archive's in their "
                "place, or give another folder (--models DIR)"
            )
        # A route comes after the models that it names.
        order = sorted((name for name in names if name not in kept), key=lambda name: (new / name / ROUTE).exists())
        _put_in_place(order, new, old, models)
    # The pipelines belong to the program, and are of its version; an edited config stays.
    install_pipelines(models, [name for name in pipelines if name not in kept])
    _remember(models, {name: digest for name, digest in hashes.items() if name.partition("/")[0] not in pipelines})
    return order


def _unpack(source: Path, folder: Path) -> dict[str, str]:
    """Unpack and verify every file into *folder*. Raises `ManifestError`, TarError and `ArchiveError`."""
    with tarfile.open(source, mode="r|*") as tar:
        members = iter(tar)
        hashes = _list_of_hashes(tar, next(members, None))
        missing = dict(hashes)
        for member in members:
            name = manifest.check_name(member.name)
            if not member.isreg():
                raise ManifestError(f"{name} is no ordinary file")
            if (digest := missing.pop(name, None)) is None:
                raise ManifestError(f"{name} is there twice, or not in {manifest.FILE}")
            target = folder / name
            _require_room(folder, member.size)
            target.parent.mkdir(parents=True, exist_ok=True)
            if _copy(tar, member, target) != digest:
                raise ManifestError(f"{name} has another SHA-256 than {manifest.FILE} says: the file was damaged")
    if missing:
        raise ManifestError(f"{min(missing)} is missing: the file was cut off")
    return hashes


def _list_of_hashes(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> dict[str, str]:
    if member is None or member.name != manifest.FILE or not member.isreg() or member.size > manifest.LONGEST:
        raise ManifestError(f"it does not begin with {manifest.FILE}: it was not made by immich-triton models archive")
    file = tar.extractfile(member)
    hashes = manifest.parsed(file.read().decode() if file else "")
    if not hashes:
        raise ManifestError(f"{manifest.FILE} is empty")
    return hashes


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size + KEPT_FREE > free:
        raise ArchiveError(f"{folder.parent.parent} has {free >> 20} MiB free, too few; nothing was written")


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
    reader = tar.extractfile(member)
    if reader is None:
        raise ManifestError(f"{member.name} is no ordinary file")
    digest = hashlib.sha256()
    with target.open("xb") as file:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _put_in_place(names: list[str], new: Path, old: Path, models: Path) -> None:
    """Rename each model into its place; all or none."""
    with contextlib.ExitStack() as back:
        for name in names:
            target = models / name
            if target.exists():
                target.rename(old / name)
                back.callback((old / name).rename, target)
            (new / name).rename(target)
            back.callback(target.rename, new / name)
        back.pop_all()


def _remember(models: Path, hashes: dict[str, str]) -> None:
    """Write the hashes beside the models, with those of other models that were restored before."""
    path = models / manifest.FILE
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ManifestError, UnicodeDecodeError):
        known = manifest.parsed(path.read_text(encoding="utf-8"))
    restored = {name.partition("/")[0] for name in hashes}
    others = {name: digest for name, digest in known.items() if name.partition("/")[0] not in restored}
    with workshop(models, "hashes") as folder:
        fresh = folder / manifest.FILE
        fresh.write_text(manifest.written(others | hashes), encoding="utf-8")
        fresh.replace(path)


def describe(hashes: dict[str, str]) -> Iterator[str]:
    """Yield the models of an archive, by the hashes of its files."""
    yield from dict.fromkeys(name.partition("/")[0] for name in hashes)
