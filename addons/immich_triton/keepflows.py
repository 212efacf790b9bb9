"""Addon: bounds what mitmweb and mitmproxy keep; by themselves they keep every flow, with its image, for ever."""

from __future__ import annotations

from collections import deque
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError

if TYPE_CHECKING:
    from mitmproxy.addons.view import View
    from mitmproxy.http import HTTPFlow


class KeepFlows:
    """Removes the oldest flows beyond ``immich_keep_flows``; mitmdump keeps none, so there is nothing to remove.

    Stands before any addon that may end a flow. Flows that a person loads from a file are not live: they stay.
    """

    def __init__(self) -> None:
        self._kept: deque[str] = deque()

    def configure(self, updated: AbstractSet[str]) -> None:
        """Check the option. Raises OptionsError."""
        if "immich_keep_flows" in updated and ctx.options.immich_keep_flows < 0:
            raise OptionsError("immich_keep_flows must be 0 (keep all) or the number of flows to keep")

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Make room for a flow that begins; mitmproxy adds it to its list right after this hook."""
        view: View | None = ctx.master.addons.get("view")
        if view is None or not flow.live:
            return
        self._kept.append(flow.id)
        limit = ctx.options.immich_keep_flows
        if limit:
            self._trim(view, limit)

    def _trim(self, view: View, limit: int) -> None:
        for _ in range(len(self._kept) - limit):
            oldest = view.get_by_id(self._kept[0])
            if oldest is not None and oldest.live:
                # To remove a flow is to kill it: one that still runs has to wait for its turn at the end.
                self._kept.rotate(-1)
                continue
            self._kept.popleft()
            if oldest is not None:
                view.remove([oldest])
