"""Addon: bounds what mitmweb and mitmproxy keep; by themselves they keep every flow, with its image, for ever."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError

from immich_triton.proxy.settings import ProxySettings

if TYPE_CHECKING:
    from mitmproxy.addons.view import View
    from mitmproxy.http import HTTPFlow
    from mitmproxy.options import Options


class KeepFlows:
    """Removes the oldest flows beyond what the option *name* says; mitmdump keeps none, so there is nothing to remove.

    *read* takes that number out of mitmproxy's options, and raises ValueError for what is none. Remembers nothing:
    whatever was kept while the script was reloaded or broken is counted too.
    """

    def __init__(
        self,
        name: str = "immich_keep_flows",
        read: Callable[[Options], int] = lambda options: ProxySettings.read(options).keep_flows,
    ) -> None:
        self._name = name
        self._read = read
        self._limit = 0

    def configure(self, updated: AbstractSet[str]) -> None:
        """Take the number that the settings say. Raises OptionsError."""
        if self._name in updated:
            try:
                self._limit = self._read(ctx.options)
            except ValueError as error:
                raise OptionsError(f"immich-triton: {error}") from error

    def requestheaders(self, flow: HTTPFlow) -> None:
        """Make room for a flow that begins; mitmproxy adds it to its list right after this hook."""
        view: View | None = ctx.master.addons.get("view")
        # A flow that is loaded from a file comes by here too, but is not live: it pushes nothing out.
        if view is None or not self._limit or not flow.live:
            return
        kept = view.resolve("@all")
        excess = len(kept) + 1 - self._limit
        # To remove a flow is to kill it: those that still run stay.
        for oldest in [each for each in kept if not each.live][: max(0, excess)]:
            view.remove([oldest])
