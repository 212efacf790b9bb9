"""How the gateway marks a flow as looked at, so that the guard can tell a live gateway from a missing one.

The marks are plain strings in ``flow.metadata``, since mitmproxy saves that with a flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

Kind = Literal["predict", "ping", "pass", "refused"]

_OWNER: Final = "immich_owner"
_KIND: Final = "immich_kind"
_RELEASED: Final = "immich_released"


def claim(flow: HTTPFlow, owner: str, kind: Kind) -> None:
    """Mark a flow as seen by the gateway *owner*, which treats it as *kind*."""
    flow.metadata[_OWNER] = owner
    flow.metadata[_KIND] = kind
    flow.metadata.pop(_RELEASED, None)


def release(flow: HTTPFlow) -> None:
    """Let a ``/predict`` flow go to the upstream: nothing in it is ours."""
    flow.metadata[_RELEASED] = True


def kind_of(flow: HTTPFlow, owner: str) -> Kind | None:
    """Return what the gateway *owner* takes the flow for, or None when it never saw it."""
    if flow.metadata.get(_OWNER) != owner:
        return None
    kind: Kind = flow.metadata[_KIND]
    return kind


def may_go_upstream(flow: HTTPFlow) -> bool:
    """Whether a claimed flow belongs to the upstream."""
    return flow.metadata.get(_KIND) == "pass" or bool(flow.metadata.get(_RELEASED))
