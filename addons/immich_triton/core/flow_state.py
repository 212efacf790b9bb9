"""Everything that a flow, a client connection or a hook's task carries from one of our modules to another: one table.

What is saved is a plain value in ``flow.metadata``, which mitmproxy writes with the flow and reads with it: a name in
such a file is a contract, and stays. What is in memory has its row here and is held by its owner. Only the owner
writes it; everybody may read it. tests/unit/core/test_flow_state.py compares the table with the code.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mitmproxy.connection import Client
    from mitmproxy.http import HTTPFlow


class Life(Enum):
    """How long a value stays."""

    FLOW = "saved with the flow; written anew whenever the flow is sent"
    SENDING = "saved with the flow; forgotten when the flow is sent again"
    CONNECTION = "in memory, at most until the client is gone"
    TASK = "in memory, in the task of a hook and in those that it starts"


@dataclass(frozen=True)
class Row:
    """A row of the table. ``owner`` is the one module that writes it, ``about`` says what it is."""

    name: str
    owner: str
    life: Life
    about: str


@dataclass(frozen=True)
class Field[T: (str, bool)](Row):
    """A value in ``flow.metadata``; *default* stands for one that was never written, and tells the type."""

    default: T

    def get(self, flow: HTTPFlow) -> T:
        """Return the value; the default where there is none, or one of another type in a file from elsewhere."""
        value = flow.metadata.get(self.name, self.default)
        return value if isinstance(value, type(self.default)) else self.default

    def set(self, flow: HTTPFlow, value: T) -> None:
        """Write the value; only in the owner."""
        flow.metadata[self.name] = value

    def drop(self, flow: HTTPFlow) -> None:
        """Remove the value, if there is one; only in the owner, and in `forget`."""
        flow.metadata.pop(self.name, None)


class ByClient[T]:
    """What the owner of *row* holds for each client connection; *make* gives a connection its first value."""

    def __init__(self, row: Row, make: Callable[[Client], T]) -> None:
        if row.life is not Life.CONNECTION:
            raise ValueError(f"{row.name} does not live as long as a connection: {row.life.value}")
        self._make = make
        self._values: dict[str, T] = {}

    def of(self, client: Client) -> T:
        """Return the value of a connection, made where there is none."""
        if client.id not in self._values:
            self._values[client.id] = self._make(client)
        return self._values[client.id]

    def get(self, client: Client) -> T | None:
        """Return the value of a connection, or None."""
        return self._values.get(client.id)

    def pop(self, client: Client) -> T | None:
        """Return the value of a connection and remove it, or None."""
        return self._values.pop(client.id, None)

    def __iter__(self) -> Iterator[T]:
        """Yield the values there are now; they may change meanwhile."""
        yield from list(self._values.values())


GATEWAY: Final = Field(
    "immich_owner", "flow_kind", Life.FLOW, "The id of the gateway that gave the flow its kind.", default=""
)
KIND: Final = Field("immich_kind", "flow_kind", Life.FLOW, "What that gateway takes the flow for.", default="")
RELEASED: Final = Field("immich_released", "flow_kind", Life.FLOW, "Whether a prediction goes upstream.", default=False)
REQUEST_ID: Final = Field(
    "immich_request_id", "request_id", Life.FLOW, "The id by which the logs of all sides are joined.", default=""
)
ROUTES: Final = Field(
    "immich_routes", "notes", Life.SENDING, "Which models answer which part of a prediction, for people.", default=""
)
FELL_BACK: Final = Field(
    "immich_fell_back",
    "gateway",
    Life.SENDING,
    "Whether a part that is routed was answered by the upstream, by the user's choice, because Triton was away.",
    default=False,
)
FAULT: Final = Field(
    "immich_fault", "gateway", Life.SENDING, "The class of the error that ended a prediction.", default=""
)
WRITTEN: Final = Field(
    "immich_written",
    "wire",
    Life.SENDING,
    "Status and reason of an answer that went out behind mitmproxy's back, so that the flow itself has none.",
    default="",
)
COMPARISON: Final = Field(
    "immich_comparison",
    "commands",
    Life.SENDING,
    "The result of a comparison that a person asked for: it does quote texts.",
    default="",
)
SITE: Final = Field(
    "immich_site",
    "site_notes",
    Life.SENDING,
    "What the site in front of the Immich server did with a request, for people; no word of what was asked.",
    default="",
)

PROGRESS: Final = Row("progress", "progress", Life.CONNECTION, "Where the connection's request stands, and since when.")
WORK: Final = Row("work", "gateway", Life.CONNECTION, "The tasks that answer the connection's predictions.")
IN_FLIGHT: Final = Row(
    "in_flight", "metrics", Life.CONNECTION, "The ids of the connection's predictions that are counted as in flight."
)
SITE_IN_FLIGHT: Final = Row(
    "site_in_flight", "in_flight", Life.CONNECTION, "The ids of the connection's requests to the site that go on."
)

CURRENT_ID: Final = Row("immich_request_id", "request_id", Life.TASK, "The id of the request a task works for.")

TABLE: Final[tuple[Row, ...]] = (
    *(GATEWAY, KIND, RELEASED, REQUEST_ID),
    *(ROUTES, FELL_BACK, FAULT, WRITTEN, COMPARISON, SITE),
    *(PROGRESS, WORK, IN_FLIGHT, SITE_IN_FLIGHT),
    CURRENT_ID,
)


def forget(flow: HTTPFlow) -> None:
    """Drop what belongs to the last time the flow was sent: a replay is another story, told in the same flow.

    One that is loaded from a file comes by here too, but is not live, and keeps all.
    """
    if flow.live:
        for row in TABLE:
            if isinstance(row, Field) and row.life is Life.SENDING:
                row.drop(flow)


def by_task(row: Row) -> ContextVar[str]:
    """Return the variable that the owner of *row* keeps for the running task; empty until it is set."""
    if row.life is not Life.TASK:
        raise ValueError(f"{row.name} does not live as long as a task: {row.life.value}")
    return ContextVar(row.name, default="")
