"""Memory files that pixels come in. A pipeline lends one to the process that decodes, and keeps it for the next image.

The kernel finds pages for what a decoder writes into a new file, maps them here piece by piece, and takes them back: of
the 5 ms that handing over a preview took so, 1 is left.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.decoding import messages

MOST_KEPT: Final = 1
"""Files that a process keeps while nobody uses them: a second saves another 1 ms of an image, for 4 MiB at the peak and
15 in the moment of the last answer. More are in use when more images are read at once."""

LARGEST_KEPT: Final = 16 << 20
"""Bytes of a file that is kept; Immich's previews have 6 to 11 million."""


class Sheet:
    """One file, read here and written by whoever has its ``descriptor``. Gone when nobody holds this any more."""

    def __init__(self) -> None:
        self.descriptor = messages.anonymous_file("pixels")
        self._memory: mmap.mmap | None = None

    def __del__(self) -> None:
        os.close(self.descriptor)

    def __len__(self) -> int:
        return os.fstat(self.descriptor).st_size

    def read(self, offset: int, count: int) -> npt.NDArray[np.uint8]:
        """Return *count* bytes from *offset* on, read-only: what is there, and what will be written there later."""
        if self._memory is None or len(self._memory) < offset + count:
            self._memory = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._memory, np.uint8, count, offset)


class Shelf:
    """The sheets of one process that are free. May be used by many threads."""

    def __init__(self) -> None:
        # A list and no lock: the garbage collector calls `put` in whichever thread it runs, in the midst of anything.
        self._free: list[Sheet] = []

    def take(self) -> Sheet:
        """Return a sheet that nobody else has."""
        try:
            return self._free.pop()
        except IndexError:
            return Sheet()

    def put(self, sheet: Sheet) -> None:
        """Keep a *sheet* that nobody writes to or reads any more, unless there are enough or it is large."""
        if len(self._free) < MOST_KEPT and len(sheet) <= LARGEST_KEPT:
            self._free.append(sheet)

    def lend(self, sheet: Sheet, offset: int, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Return what is in *sheet* from *offset* on, uint8 and read-only. It comes back with the last such array."""
        content = sheet.read(offset, int(np.prod(shape)))
        # Views of it keep it alive: numpy ends a view's chain of bases at the array that has another kind of base.
        weakref.finalize(content, self.put, sheet).atexit = False
        return content.reshape(shape)

    def clear(self) -> None:
        """Give the memory of all that are free back."""
        self._free.clear()
