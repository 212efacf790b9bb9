"""The processes that decode images for one Triton server."""

from __future__ import annotations

import contextlib

from immich_triton.server import processes


def decoders(triton: int) -> list[int]:
    """Return the pool of the server *triton* and, below it, the processes that decode; nothing when there is none."""
    found = []
    for pid in processes.pids():
        with contextlib.suppress(OSError):
            arguments = (processes.PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
            if b"immich_pipelines.decoding.server" in arguments and arguments[-2] == str(triton).encode():
                found.append(pid)
    return sorted(found, key=lambda pid: (processes.parent(pid) in found, pid))
