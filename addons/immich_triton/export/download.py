"""Large files from the network: progress bar, resume, and a SHA-256 that is checked or, failing that, remembered."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_CHUNK: Final = 1 << 16
"""Bytes written at a time; what was received of an unfinished chunk is lost when the transfer breaks."""
_ATTEMPTS: Final = 5
"""How often a broken transfer is taken up again before giving up; only attempts that brought nothing count."""
_TIMEOUT: Final = (15.0, 60.0)
"""Seconds to connect, and to wait for the next bytes."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class DownloadError(Exception):
    """The file could not be had, or is not the file it should be; the text says which, and what to do."""


@dataclass(frozen=True)
class Downloaded:
    """The SHA-256 of a downloaded file, and what it was checked against."""

    sha256: str
    basis: str


def download(url: str, target: Path, *, sha256: str | None, ledger: Path) -> str:
    """Download *url* to *target* unless it is there, and return its SHA-256; see `fetch`."""
    return fetch(url, target, sha256=sha256, ledger=ledger).sha256


def fetch(url: str, target: Path, *, sha256: str | None, ledger: Path, offline_hint: str = "") -> Downloaded:
    """Download *url* to *target* unless it is there; check the file in either case.

    It must have the hash *sha256* (from a source worth trusting). Where that is None, it must have the one that the
    *ledger* (a JSON file) recorded at the first download of a file of this
    name. At the first download the host may state one
    (Hugging Face: ``X-Linked-ETag``, the SHA-256 of the file in its own storage); the hash is recorded then. A broken
    transfer leaves ``<target>.part``, which the next call goes on with. Raises `DownloadError`; *offline_hint* ends
    its text when the network is to blame.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    stated = None
    if not target.exists():
        try:
            stated = _transfer(url, part)
        except requests.RequestException as error:
            raise DownloadError(
                " ".join(f"{url} cannot be downloaded: {_reason(error)}. {offline_hint}".split())
            ) from error
    file = target if target.exists() else part
    digest = file_sha256(file)
    recorded = _recorded(ledger, target.name)
    expected, basis = next(
        (pair for pair in _expectations(sha256, recorded, stated) if pair[0]),
        (digest, "nothing to check it against yet: recorded, and every later download must equal it"),
    )
    if digest != expected:
        kept = file.rename(file.with_name(f"{target.name}.rejected")) if file == part else file
        raise DownloadError(
            f"{url} is not the file it should be: its SHA-256 is {digest}, expected {expected} ({basis}). "
            f"The file is kept as {kept}. If its publisher changed it, remove that file and its entry in {ledger}."
        )
    if not recorded:
        _record(ledger, target.name, digest, basis)
    if file == part:
        _etag_file(part).unlink(missing_ok=True)
        part.rename(target)
    Console(stderr=True).print(f"{target.name}: SHA-256 {digest} ({basis})", highlight=False, soft_wrap=True)
    return Downloaded(digest, basis)


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expectations(pinned: str | None, recorded: str | None, stated: str | None) -> list[tuple[str | None, str]]:
    return [
        (pinned, "pinned in this project"),
        (recorded, "recorded at the first download"),
        (stated, "stated by the host that served it; recorded"),
    ]


def _transfer(url: str, part: Path) -> str | None:
    """Bring *part* to its full length; return the SHA-256 that the host states, if it does."""
    fruitless = 0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        task = progress.add_task(part.stem, total=None)
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                return _attempt(url, part, progress, task)
            except requests.HTTPError:
                raise
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                fruitless = 0 if part.exists() and part.stat().st_size > before else fruitless + 1
                # The very first connection failing means offline: say so at once.
                if fruitless >= _ATTEMPTS or (fruitless and not before):
                    raise


def _attempt(url: str, part: Path, progress: Progress, task: TaskID) -> str | None:
    etag = _etag_file(part)
    offset = part.stat().st_size if part.exists() and etag.exists() else 0
    # identity: a resumed transfer counts bytes of the file, not of a compressed stream.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        # If-Range: when the file changed meanwhile the server sends all of it instead of a rest that does not fit.
        headers |= {"Range": f"bytes={offset}-", "If-Range": etag.read_text(encoding="utf-8")}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # Nothing is left to send, or the file shrank: the total in "bytes */N" tells.
            if response.headers.get("Content-Range") == f"bytes */{offset}":
                return _stated_hash(response)
            part.unlink()
            return _attempt(url, part, progress, task)
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise DownloadError(f"{url}: asked for bytes from {offset}, got {response.headers.get('Content-Range')}")
        offset = offset if resumed else 0
        _remember_etag(etag, response.headers)
        length = response.headers.get("Content-Length")
        progress.update(task, total=offset + int(length) if length else None, completed=offset)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                progress.update(task, advance=len(chunk))
        return _stated_hash(response)


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _remember_etag(path: Path, headers: Mapping[str, str]) -> None:
    etag = headers.get("ETag", "")
    # A weak validator must not be used with If-Range (RFC 9110, 13.1.5): such a transfer starts over.
    if etag and not etag.startswith("W/"):
        path.write_text(etag, encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def _stated_hash(response: requests.Response) -> str | None:
    for answer in (*response.history, response):
        if match := _SHA256.fullmatch(answer.headers.get("X-Linked-ETag", "").strip('"')):
            return match[0]
    return None


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return f"{type(error).__name__}: {error}"


def _entries(ledger: Path) -> dict[str, dict[str, str]]:
    if not ledger.exists():
        return {}
    entries: dict[str, dict[str, str]] = json.loads(ledger.read_text(encoding="utf-8"))
    return entries


def _recorded(ledger: Path, name: str) -> str | None:
    return _entries(ledger).get(name, {}).get("sha256")


def _record(ledger: Path, name: str, digest: str, basis: str) -> None:
    entries = _entries(ledger) | {name: {"sha256": digest, "basis": basis}}
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=ledger.parent, delete=False, encoding="utf-8") as file:
        json.dump(entries, file, indent=2, sort_keys=True)
    os.replace(file.name, ledger)  # noqa: PTH105 - atomic, a reader never sees half of it
