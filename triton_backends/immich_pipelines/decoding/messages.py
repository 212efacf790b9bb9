"""What is said over the pool's Unix sockets: small JSON messages, some with file descriptors.

A client opens a connection for each image and sends ``Job`` with two anonymous memory files (memfd): one with the image
file in it, one for the pixels. The answer is ``{"width", "height", "offset"}``, which says where in the second they
are, or ``{"error", "kind"}``. Nothing has a name in a file system, so nothing is left behind when a process is killed.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from immich_pipelines.decoding.findings import Scan

BAD_INPUT: Final = "bad input"
"""The image is to blame."""
KILLED: Final = "killed"
"""Somebody else killed the process, as the kernel does for lack of memory: worth another try."""
FAULT: Final = "fault"
"""The machine or this program is to blame."""

_LONGEST: Final = 65_536
_MOST_DESCRIPTORS: Final = 3


@dataclass(frozen=True)
class Job:
    """An image to decode: what the scan found, and its bounds.

    ``seconds``: the CPU time that it may take at most; a small image gets less. ``side``: squeeze it to a square of so
    many pixels; 0 leaves it as it is.
    """

    scan: Scan
    max_pixels: int
    seconds: float
    side: int = 0

    def message(self) -> dict[str, Any]:
        """Return it as a message."""
        return asdict(self)

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Job:
        """Return the job that `message` made."""
        return cls(**{**message, "scan": Scan(**message["scan"])})


def send(connection: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send *message* and copies of *descriptors*."""
    socket.send_fds(connection, [json.dumps(message).encode()], descriptors)


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message with its descriptors, which are the caller's now; None when the other side is gone."""
    data, descriptors, _, _ = socket.recv_fds(connection, _LONGEST, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    return (json.loads(data) if data else None), descriptors


def check_peer(connection: socket.socket) -> None:
    """Raise PermissionError unless the process at the other end belongs to our user: addresses can be guessed."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid():
        raise PermissionError(f"the other end of the decoding pool's connection belongs to user {uid}")


def anonymous_file(name: str) -> int:
    """Return a descriptor of a new memory file, which is gone when the last one that has it open or mapped is."""
    return os.memfd_create(name, os.MFD_CLOEXEC)
