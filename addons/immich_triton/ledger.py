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

from immich_triton import state_file

VERSION = 1


class LedgerError(RuntimeError):
    """The ledger cannot be read or written; until it can, no CLIP request is answered."""


class Ledger:
    """``owned.json`` in the state directory; read anew when the file changes, written atomically."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "owned.json"
        self._owned: dict[str, dict[str, str]] = {}
        self._stamp: tuple[int, int] | None = None

    def owned(self) -> dict[str, str]:
        """Return ``{name: weights' SHA-256}``. Raises `LedgerError`."""
        self._refresh()
        return {name: entry["weights_sha256"] for name, entry in self._owned.items()}

    def own(self, name: str, weights_sha256: str) -> str:
        """Remember that *name* is answered with these weights, unless it is owned already. Raises `LedgerError`.

        Returns the SHA-256 of the weights that count: another gateway may have been faster.
        """
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._change():
            self._owned = {name: {"weights_sha256": weights_sha256, "since": since}, **self._owned}
        return self._owned[name]["weights_sha256"]

    def forget(self, name: str) -> bool:
        """Give *name* up: the index was rebuilt, or another model may answer from now on. False when not owned."""
        if name not in self.owned():
            return False
        with self._change():
            self._owned = {key: value for key, value in self._owned.items() if key != name}
        return True

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._owned, self._stamp = {}, None
            return
        except OSError as error:
            raise LedgerError(f"cannot read {self.path}: {error}") from error
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            owned = raw["clip"]
            if raw["version"] != VERSION or not all(isinstance(owned[name]["weights_sha256"], str) for name in owned):
                raise LedgerError(f"{self.path} is not a ledger of version {VERSION}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"cannot read {self.path}: {error!r}; restore it, or remove it after a re-index"
            ) from error
        self._owned, self._stamp = owned, stamp

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Write what the block makes of ``_owned``; what another gateway wrote meanwhile is not lost."""
        try:
            with state_file.exclusive(self.path):
                self._refresh()
                yield
                text = json.dumps({"version": VERSION, "clip": self._owned}, indent=2, sort_keys=True) + "\n"
                state_file.replace(self.path, text)
        except OSError as error:
            self._stamp = None
            raise LedgerError(f"cannot write {self.path}: {error}; is immich_state_dir writable?") from error
        self._refresh()
