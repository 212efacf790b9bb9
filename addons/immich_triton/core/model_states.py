"""What the supervisor of an embedded Triton says about its models, and how it is asked: one line of JSON each way.

The question is ``{}``, or ``{"use": ROUTE}``: a request for that route is here, so its models have to be awake. The
answer is a `States`. Asked is a socket in the run directory, which belongs to whoever started the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

NAME: Final = "models.sock"
"""The socket's name in the run directory."""

LONGEST: Final = 1 << 20
"""Bytes of a line that are read; a repository has tens of models."""

PATIENCE: Final = 0.5
"""Seconds for an answer. The supervisor has it in memory; it is asked by Immich's ping too, which waits for 2."""

State = Literal["ready", "asleep", "waking", "loading", "failed"]
"""``asleep``: unloaded on purpose, until somebody asks; ``waking``: somebody did, and it is being loaded; ``loading``:
that takes too long, or Triton has just started; ``failed``: it could not be loaded."""

RESTING: Final = frozenset({"asleep", "waking"})
"""States of a model that Triton does not have, and nothing is wrong."""


@dataclass(frozen=True)
class States:
    """The routed models' states, why some ``failed``, and for how long nobody puts a route to sleep that was asked."""

    models: Mapping[str, State] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    awake_seconds: float = 0.0

    def encode(self) -> bytes:
        """Return the line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> States:
        """Read a line. Raises ValueError for any other."""
        try:
            raw = json.loads(line)
            models: dict[str, Any] = {str(model): state for model, state in raw["models"].items()}
            if unknown := set(models.values()) - set(get_args(State)):
                raise ValueError(f"no states of a model: {unknown}")
            reasons = {str(model): str(reason) for model, reason in raw["reasons"].items()}
            return cls(models, reasons, float(raw["awake_seconds"]))
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no states of models: {error!r}") from error


def question(use: str = "") -> bytes:
    """Return the line that asks; *use* is the route, the name of its folder, for which a request is here."""
    return json.dumps({"use": use} if use else {}).encode() + b"\n"


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield the address of a socket while the block lasts. Raises OSError when its folder is not there.

    The kernel takes 107 bytes, and a run directory may have a longer name: so it is named by its descriptor.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def ask(path: Path) -> States:
    """Ask how the models are. Raises OSError when nobody answers, ValueError when that is no supervisor."""
    with address(path) as place, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10 * PATIENCE)
        connection.connect(place)
        connection.sendall(question())
        with connection.makefile("rb") as lines:
            return States.decode(lines.readline(LONGEST))


async def ask_soon(path: Path, use: str = "") -> States:
    """Ask within `PATIENCE`, and say that route *use* is asked for. Raises OSError (as TimeoutError) or ValueError."""
    async with asyncio.timeout(PATIENCE):
        with address(path) as place:
            reader, writer = await asyncio.open_unix_connection(place, limit=LONGEST)
        try:
            writer.write(question(use))
            return States.decode(await reader.readline())
        finally:
            writer.close()
