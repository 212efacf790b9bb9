"""Addon: the options of the site, and how mitmproxy has to be set for it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError

from immich_triton.proxy import reverse_proxy
from immich_triton.web.settings import OPTIONS, Settings

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

    from immich_triton.web.service import Service


class Configuration:
    """First in the list: nothing works before it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        reverse_proxy.prepare(loader, OPTIONS)

    def configure(self, updated: AbstractSet[str]) -> None:
        """Check what has changed. Raises OptionsError, and then mitmproxy takes the change back."""
        if "mode" in updated:
            for mode in ctx.options.mode:
                reverse_proxy.check_mode(mode, "http://immich-server:2283")
        if updated & {one.name for one in OPTIONS}:
            try:
                self._service.configure(Settings.read(ctx.options))
            except ValueError as error:
                raise OptionsError(f"immich-triton: {error}") from error
            if ctx.options.keep_host_header != self._service.settings.keep_host:
                ctx.options.update(keep_host_header=self._service.settings.keep_host)
        reverse_proxy.correct(updated)
        if "flow_detail" in updated and ctx.options.flow_detail == ctx.options.default("flow_detail"):
            # One line for each picture of a page, and with it the keys that Immich takes in the query string.
            ctx.options.update(flow_detail=0)

    def running(self) -> None:
        """Load what takes a moment before somebody searches."""
        self._service.warm_up()

    def done(self) -> None:
        """Close the connections to Immich."""
        self._service.close()
