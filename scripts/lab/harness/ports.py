"""Ports for servers that a test starts: what one test run was given, no other and no connection takes meanwhile."""

from __future__ import annotations

import atexit
import itertools
import secrets
import socket
from pathlib import Path
from typing import Final

_EPHEMERAL: Final = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
_PORTS: Final = range(12_000, min(_EPHEMERAL, 32_768))
_kept: Final[list[socket.socket]] = []
_candidates: Final = itertools.islice(itertools.cycle(_PORTS), secrets.randbelow(len(_PORTS)), None)


def free_ports(count: int) -> list[int]:
    """Return *count* different TCP ports on which nothing listens, and that only this process gives to anyone.

    They lie below those that the system gives to connections, and a name in Linux's abstract namespace, held until this
    process ends, keeps each from other test runs: a port that was merely free could be gone before its server starts.
    """
    return [next(port for port in _candidates if _take(port)) for _ in range(count)]


def _take(port: int) -> bool:
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0immich-triton-test-port-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError:
        mark.close()
        return False
    _kept.append(mark)
    atexit.register(mark.close)
    return True
