"""Weights in a file beside the model, which OpenVINO maps into memory: after it has packed them it never looks again.

The packed copy is all that a compiled model of one shape computes with. The mapped pages stay in the process until the
kernel runs short of memory, and count as its own: 345 MB for ViT-B-16.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4
"""Of ``madvise``: the pages of a mapped file are read anew should anybody look at them again."""


def let_go(folder: Path, maps: Path = Path("/proc/self/maps")) -> int:
    """Take the pages of all files in *folder* that this process has mapped out of its memory; return their bytes.

    Only mappings that cannot be written to: what was written into others would be lost. Where the kernel does not
    tell what is mapped, nothing happens.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    try:
        lines = maps.read_bytes().splitlines()
    except OSError:
        return 0
    inside = os.fsencode(folder.resolve()) + b"/"
    gone = 0
    for addresses, mode, _, _, _, name in (fields for line in lines if len(fields := line.split(None, 5)) == 6):
        if madvise and b"w" not in mode and name.startswith(inside):
            start, end = (int(address, 16) for address in addresses.split(b"-"))
            if not madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED):
                gone += end - start
    return gone
