"""What the live gateway takes a flow for, so that the guard can tell it from one that no gateway has looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, get_args

from immich_triton.core import flow_state

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

FlowKind = Literal["predict", "ping", "pass", "refused"]

_KINDS: Final[Mapping[str, FlowKind]] = {kind: kind for kind in get_args(FlowKind)}


def set_kind(flow: HTTPFlow, gateway: str, kind: FlowKind) -> None:
    """Say that the *gateway* of that id has looked at a flow, and takes it for *kind*."""
    flow_state.GATEWAY.set(flow, gateway)
    flow_state.KIND.set(flow, kind)
    flow_state.RELEASED.drop(flow)


def release(flow: HTTPFlow) -> None:
    """Let a ``/predict`` flow go to the upstream: nothing in it is ours."""
    flow_state.RELEASED.set(flow, True)


def kind_of(flow: HTTPFlow, gateway: str) -> FlowKind | None:
    """Return what the *gateway* takes the flow for, or None when it never saw it."""
    return _KINDS.get(flow_state.KIND.get(flow)) if flow_state.GATEWAY.get(flow) == gateway else None


def may_go_upstream(flow: HTTPFlow) -> bool:
    """Whether a flow, once it has a kind, belongs to the upstream."""
    return flow_state.KIND.get(flow) == "pass" or flow_state.RELEASED.get(flow)
