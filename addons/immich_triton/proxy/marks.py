"""The mark of an error in mitmproxy's list of flows, and which flows are not ours to mark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

ERROR_MARK: Final = ":red_circle:"


def mark(flow: HTTPFlow, *, failed: bool) -> None:
    """Mark an error; take our mark, and no other, from a flow that failed before it was replayed."""
    if failed:
        flow.marked = ERROR_MARK
    elif flow.marked == ERROR_MARK:
        flow.marked = ""


def is_loaded(flow: HTTPFlow) -> bool:
    """Whether a flow comes from a file, with a comment of its own; one that was killed here has none yet."""
    return not flow.live and bool(flow.comment)
