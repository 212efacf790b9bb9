"""Weights in a file beside the model, which an engine maps into memory: after it has packed them it seldom looks again.

What it computes with is the packed copy. The mapped pages stay in the process until the kernel runs short of memory,
and count as its own: 345 MB for ViT-B-16. Whoever looks again, for kernels of another shape or for the rows of a table
of words, gets them from the system's cache of the file.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4
"""Of ``madvise``: the pages of a mapped file are read anew should anybody look at them again."""
_MAPPING: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ +(/.*)")
_ANONYMOUS: Final = b"Anonymous:"
"""How much of a mapping is no longer the file's, because it was written to; the line that follows each mapping."""


def let_go(folder: Path, maps: Path = Path("/proc/self/smaps")) -> int:
    """Take the pages of all files in *folder* that this process has mapped out of its memory; return their bytes.

    Only of mappings that nobody has written to, which would be lost. (ONNX Runtime maps so that it could.) Where the
    kernel does not tell what is mapped, nothing happens.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    inside = os.fsencode(folder.resolve()) + b"/"
    try:
        lines = maps.read_bytes().splitlines()
    except OSError:
        return 0
    gone = 0
    mapping: re.Match[bytes] | None = None
    for line in lines:
        if line.startswith(_ANONYMOUS):
            if madvise and mapping and mapping[4].startswith(inside) and line.split()[1] == b"0":
                start, end = int(mapping[1], 16), int(mapping[2], 16)
                if not madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED):
                    gone += end - start
            mapping = None
        elif found := _MAPPING.fullmatch(line):
            mapping = found
    return gone
