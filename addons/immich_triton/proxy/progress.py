"""Where the request of each client connection stands, and since when.

HTTP/1.1 has one request at a time per connection (HTTP/2 is switched off), so this is kept by connection. It lives in
this module and not in an addon, because connections outlive a reload of the script.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Final

from immich_triton.core import flow_state
from immich_triton.core.flow_state import ByClient
from immich_triton.proxy.budget import Budget

if TYPE_CHECKING:
    from asyncio import StreamWriter
    from collections.abc import Iterator

    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow

    from immich_triton.proxy.wire import Tap


class Stage(Enum):
    """The life of a connection: the first four in order, over and over; the others are the last."""

    IDLE = "waits for a request"
    HEAD = "its headers arrive"
    BODY = "its body arrives"
    ANSWER = "it is being answered"
    TUNNEL = "a WebSocket, which has no end"
    CLOSING = "it was told why not, or cut off; its end is under way"


AT_WORK: Final = (Stage.HEAD, Stage.BODY, Stage.ANSWER)
LAST: Final = (Stage.TUNNEL, Stage.CLOSING)


class Flood(OSError):  # noqa: N818 - it tells the connection handler that this is the end
    """A client sends more than its request may hold."""


AHEAD: Final = 128 * 1024
"""Bytes that headers may have, and that a client may send before its last request is answered."""


class Progress:
    """One client connection. Times are monotonic, in seconds."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.tap: Tap | None = None
        self.upstream_tap: Tap | None = None
        """On the connection to the upstream that was opened last."""
        self.writer: StreamWriter | None = None
        self.flow: HTTPFlow | None = None
        self.held = 0
        """Bytes taken from the budget of waiting bodies."""
        self.begun = False
        """Whether an answer of the upstream has begun."""
        self.refused = False
        """Whether the request gets no more than a word why not."""
        self.answered = False
        """Whether the answer ended before the request did."""
        self.connecting: float | None = None
        """Since when an upstream connection is being opened."""
        self.enter(Stage.IDLE)

    def enter(self, stage: Stage, allowance: int | None = AHEAD) -> None:
        """Begin a stage, in which the client may send *allowance* bytes (None: any number)."""
        self.stage = stage
        self.since = self.active = time.monotonic()
        self._allowance = allowance
        if self.tap is not None:
            # mitmproxy asks for 64 KiB, and takes a photo through all its layers in five or more pieces. No more than
            # AHEAD: the handler may ask while a body still counts as arriving, and get the next request instead.
            self.tap.at_once = AHEAD if stage is Stage.BODY else 0

    def begin(self, flow: HTTPFlow) -> None:
        """Take note of a request whose headers are complete."""
        self.flow, self.begun, self.answered, self.refused = flow, False, False, False

    def finish(self) -> None:
        """Take note that the request is answered, and wait for the next."""
        self.flow = None
        self.enter(Stage.IDLE)

    def received(self, count: int, unparsed: int = 0) -> None:
        """Count what the client sent; *unparsed* bytes of it wait for the end of a line or a head. Raises `Flood`."""
        if self.stage is Stage.IDLE:
            self.enter(Stage.HEAD)
        self.active = time.monotonic()
        if self._allowance is not None:
            self._allowance -= count
            if self._allowance < 0:
                raise Flood(f"more than {AHEAD} bytes ahead of the request")
        if unparsed > AHEAD:
            raise Flood(f"a head, or the line before a chunk, of more than {AHEAD} bytes")

    def passed_on(self, _count: int) -> None:
        """Take note that the upstream sent something."""
        self.active = time.monotonic()


_ALL: Final = ByClient(flow_state.PROGRESS, Progress)

BUDGET: Final = Budget(0)
"""What the bodies of all connections may hold, `Progress.held` together; the settings say how much that is."""


def of(client: Client) -> Progress:
    """Return the progress of a connection."""
    return _ALL.of(client)


def forget(client: Client) -> Progress | None:
    """Remove a connection that has ended."""
    return _ALL.pop(client)


def everyone() -> Iterator[Progress]:
    """Yield the connections there are now."""
    yield from _ALL


def busy() -> bool:
    """Return whether any request is being read or answered, those aside that are being refused."""
    return any(one.stage in AT_WORK and not one.refused for one in _ALL)


def refusing() -> bool:
    """Return whether any request is being read or answered at all."""
    return any(one.stage in AT_WORK for one in _ALL)
