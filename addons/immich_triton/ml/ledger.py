"""The ledger of owned names: which CLIP model names we ever answered, with which weights.

Two embedding spaces of equal size mix silently: a photo indexed by one model and a query embedded by another give
confident nonsense. So a CLIP name that was once ours stays ours. When its route is gone (a fresh clone, another model
repository) or comes back with other weights, it is refused until a person says that the index has been rebuilt.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from immich_triton.core import state_file

VERSION = 1


class LedgerError(RuntimeError):
    """The ledger cannot be read or written; until it can, no CLIP request is answered."""


class Ledger:
    """``owned.json`` in the state directory; read anew when the file changes, written atomically.

    Threads may share it. What writes waits for other gateways, up to `state_file.PATIENCE`: not in an event loop.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "owned.json"
        self._read: tuple[_Stamp, _Entries] | None = None

    def owned(self) -> dict[str, str]:
        """Return ``{name: weights' SHA-256}``. Raises `LedgerError`."""
        return {name: entry["weights_sha256"] for name, entry in self._entries().items()}

    def own(self, name: str, weights_sha256: str) -> str:
        """Remember that *name* is answered with these weights, unless it is owned already. Raises `LedgerError`.

        Returns the SHA-256 of the weights that count: another gateway may have been faster.
        """
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._changing() as entries:
            entries.setdefault(name, {"weights_sha256": weights_sha256, "since": since})
            return entries[name]["weights_sha256"]

    def forget(self, name: str) -> bool:
        """Give *name* up: the index was rebuilt, or another model may answer from now on. False when not owned."""
        if name not in self.owned():
            return False
        with self._changing() as entries:
            return entries.pop(name, None) is not None

    def _entries(self) -> _Entries:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise LedgerError(f"cannot read {self.path}: {error}") from error
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        read = self._read
        if read is not None and read[0] == stamp:
            return read[1]
        try:
            entries = _parse(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise LedgerError(
                f"cannot read {self.path}: {error!r}; restore it, or remove it after a re-index"
            ) from error
        self._read = (stamp, entries)
        return entries

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_Entries]:
        """Write what the block makes of the entries; what another gateway wrote meanwhile is not lost."""
        try:
            with state_file.exclusive(self.path):
                entries = dict(self._entries())
                yield entries
                text = json.dumps({"version": VERSION, "clip": entries}, indent=2, sort_keys=True) + "\n"
                state_file.replace(self.path, text)
        except OSError as error:
            raise LedgerError(f"cannot write {self.path}: {error}; is immich_state_dir writable?") from error


_Stamp = tuple[int, int, int]
_Entries = dict[str, dict[str, str]]


def _parse(text: str) -> _Entries:
    """Return what the file says of each name. Raises ValueError when it is no ledger of this version."""
    raw = json.loads(text)
    entries = raw.get("clip") if isinstance(raw, dict) and raw.get("version") == VERSION else None
    if isinstance(entries, dict) and all(_is_entry(entry) for entry in entries.values()):
        return entries
    raise ValueError(f"it is no ledger of version {VERSION}")


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("weights_sha256"), str)
