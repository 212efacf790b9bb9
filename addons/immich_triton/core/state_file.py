"""Small files that must survive a restart and that several processes may change.

They and their locks belong to the gateway's user alone: whoever may open a lock can hold it, and everybody else waits.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

PATIENCE: Final = 5.0
"""Seconds to wait for a lock; who has it writes a few hundred bytes."""

PAUSE: Final = 0.02
"""Seconds between two tries."""

PRIVATE: Final = 0o600


@contextlib.contextmanager
def exclusive(path: Path, *, patience: float | None = None) -> Iterator[None]:
    """Let nobody else change *path* while the block reads and writes it.

    Waits up to *patience* seconds (`PATIENCE`), and blocks the thread meanwhile. Raises OSError; TimeoutError when
    time is up.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), PRIVATE)
    try:
        if sys.platform != "win32":
            _make_private(descriptor)
            _lock(descriptor, lock, time.monotonic() + (PATIENCE if patience is None else patience))
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, lock: Path, ends: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                text = f"another process holds {lock} and does not let go; end it (fuser -v {lock})"
                raise TimeoutError(text) from None
            time.sleep(PAUSE)
        else:
            return


def _make_private(descriptor: int) -> None:
    """Take the rights of others away, which an older version left to the umask."""
    status = os.fstat(descriptor)
    if status.st_mode & 0o777 != PRIVATE and status.st_uid == os.geteuid():
        os.fchmod(descriptor, PRIVATE)


def replace(path: Path, text: str) -> None:
    """Write *text*: whoever reads sees the old file or the new one, also after a power cut. Raises OSError.

    Others than the owner can neither read nor write it.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
