"""An addon that outlives the script: without a live gateway nothing goes upstream.

mitmproxy fails open. When a script is edited into an error, moved or deleted, it is unloaded within a second and every
request is forwarded, also those for CLIP, which would fill the index with another model's vectors. The guard is
registered outside the script, once, and stays: whatever the live gateway has not looked at gets 503.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mitmproxy import ctx

from immich_triton.proxy import wire
from immich_triton.proxy.answers import error_response
from immich_triton.proxy.flow_kind import kind_of, may_go_upstream
from immich_triton.proxy.script_watch import ScriptWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.http import HTTPFlow
    from mitmproxy.proxy.server_hooks import ServerConnectionHookData

logger = logging.getLogger(__name__)

GONE = (
    "immich-triton is not loaded: its script was changed, moved or removed, or has an error (see mitmproxy's log). "
    "Nothing is forwarded until it is back; repair the script, or restart mitmproxy without it."
)


class Guard:
    """Comes after the gateway in mitmproxy's chain, and closes what it left open."""

    name = "immich_triton_guard"

    def __init__(self) -> None:
        self.owner = ""
        self.refusals = 0
        self.script = ScriptWatch(lambda: bool(self.owner))

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """Answer what no live gateway has looked at, without reading it."""
        if flow.error is None and (not self.owner or kind_of(flow, self.owner) is None):
            self.refusals += 1
            flow.request.stream = False
            await wire.answer_at_once(flow, error_response(503, GONE))

    def request(self, flow: HTTPFlow) -> None:
        """Answer a request with a kind that the gateway did not come to decide on."""
        if flow.response is None and flow.error is None and not may_go_upstream(flow):
            self.refusals += 1
            flow.response = error_response(503, GONE)

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """Refuse every upstream connection while there is no gateway."""
        if not self.owner:
            data.server.error = "immich-triton is not loaded"


def install(owner: str) -> None:
    """Make *owner* the live gateway; the guard is added to mitmproxy's chain the first time."""
    guard = ctx.master.addons.get(Guard.name)
    if guard is None:
        guard = Guard()
        ctx.master.addons.add(guard)
    guard.owner = owner


def was_there_before() -> bool:
    """Return whether another gateway was live before in this process."""
    guard = ctx.master.addons.get(Guard.name)
    return guard is not None and guard.script.knows_one


def watch(addon: object) -> None:
    """Bring the script that *addon* came from back, whatever mitmproxy makes of it."""
    guard = ctx.master.addons.get(Guard.name)
    if guard is not None:
        guard.script.watch(addon)


def load_again_when(is_usable: Callable[[], bool]) -> None:
    """Load the script again, which refused to be loaded, as soon as *is_usable*."""
    guard = ctx.master.addons.get(Guard.name)
    if guard is not None:
        guard.script.load_again_when(is_usable)


def retire(owner: str) -> None:
    """Say that the gateway *owner* is gone."""
    guard = ctx.master.addons.get(Guard.name)
    if guard is not None and guard.owner == owner:
        guard.owner = ""
        logger.warning("immich-triton is unloaded: every request gets 503 until it is back")


def take_refusals() -> int:
    """Return how many requests the guard has answered since the last call."""
    guard = ctx.master.addons.get(Guard.name)
    if guard is None:
        return 0
    count, guard.refusals = guard.refusals, 0
    return int(count)
