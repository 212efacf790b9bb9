"""Why photos cannot be processed again: said to the caller, who has shown by then that he might have it done."""

from __future__ import annotations

from typing import ClassVar


class NotPossible(Exception):  # noqa: N818 - an answer, not a fault of ours
    """Answered with *status*; the text says why and what to do, and names no address and no password."""

    status: ClassVar[int] = 501


class NotConfigured(NotPossible):
    """There is no way to Immich's queues."""


class UnknownLayout(NotPossible):
    """The queues are not as we know them, so nothing is put into them."""


class RedisFailed(NotPossible):
    """Redis did not answer, or refused."""

    status = 503
