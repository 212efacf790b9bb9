"""Addon: bounds what mitmweb and mitmproxy keep; by themselves they keep every flow, with its image, for ever."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError

if TYPE_CHECKING:
    from mitmproxy.addons.view import View
    from mitmproxy.http import HTTPFlow


class KeepFlows:
    """Removes the oldest flows beyond ``immich_keep_flows``; mitmdump keeps none, so there is nothing to remove.

    Remembers nothing: whatever was kept while the script was reloaded or broken is counted too.
    """

    def configure(self, updated: AbstractSet[str]) -> None:
        """Check the option. Raises OptionsError."""
        if "immich_keep_flows" in updated and ctx.options.immich_keep_flows < 0:
            raise OptionsError("immich_keep_flows must be 0 (keep all) or the number of flows to keep")

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Make room for a flow that begins; mitmproxy adds it to its list right after this hook."""
        view: View | None = ctx.master.addons.get("view")
        limit = ctx.options.immich_keep_flows
        # A flow that is loaded from a file comes by here too, but is not live: it pushes nothing out.
        if view is None or not limit or not flow.live:
            return
        kept = view.resolve("@all")
        excess = len(kept) + 1 - limit
        # To remove a flow is to kill it: those that still run stay.
        for oldest in [each for each in kept if not each.live][: max(0, excess)]:
            view.remove([oldest])
