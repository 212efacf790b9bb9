"""Addon: the options of the site, and how mitmproxy has to be set for it."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx, version
from mitmproxy.exceptions import OptionsError
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

from immich_triton import http1, wire
from immich_triton.web.options import SETTINGS, declare
from immich_triton.web.settings import Settings

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

    from immich_triton.web.service import Service

logger = logging.getLogger(__name__)


class Configuration:
    """First in the list: nothing works before it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def load(self, loader: Loader) -> None:
        """Declare the options, and read those of the command line at once.

        One that is no number where one belongs would let mitmproxy go on without the script and without a word. An
        error in the log makes it end.
        """
        try:
            wire.check_version(version.VERSION)
            http1.install()
            declare(loader)
            ctx.options.process_deferred()
        except (OptionsError, ValueError) as error:
            logger.error("immich-triton: %s", error)  # noqa: TRY400 - the message says it all
            raise OptionsError(str(error)) from error

    def configure(self, updated: AbstractSet[str]) -> None:
        """Check what has changed. Raises OptionsError, and then mitmproxy takes the change back."""
        if "mode" in updated:
            for mode in ctx.options.mode:
                check_mode(mode)
        if updated & {setting.name for setting in SETTINGS}:
            try:
                self._service.configure(Settings.read(ctx.options))
            except ValueError as error:
                raise OptionsError(f"immich-triton: {error}") from error
            if ctx.options.keep_host_header != self._service.settings.keep_host:
                ctx.options.update(keep_host_header=self._service.settings.keep_host)
        if "http2" in updated and ctx.options.http2:
            # mitmproxy 12.2 hands on a body of HTTP/2 that has no length as if it were the next request.
            ctx.options.update(http2=False)
        if "connection_strategy" in updated and ctx.options.connection_strategy != "lazy":
            # Eager connects to Immich first, and cuts clients off without an answer while Immich is down.
            ctx.options.update(connection_strategy="lazy")
        if "flow_detail" in updated and ctx.options.flow_detail == ctx.options.default("flow_detail"):
            # One line for each picture of a page, and with it the keys that Immich takes in the query string.
            ctx.options.update(flow_detail=0)

    def running(self) -> None:
        """Load what takes a moment before somebody searches."""
        self._service.warm_up()

    def done(self) -> None:
        """Close the connections to Immich."""
        self._service.close()


def check_mode(spec: str) -> None:
    """Raise OptionsError for any mode but ``reverse:http(s)``."""
    mode = ProxyMode.parse(spec)
    if not isinstance(mode, ReverseMode) or mode.scheme not in ("http", "https"):
        raise OptionsError(
            f"immich_web works in reverse mode only, not in mode {spec!r}; "
            "start it with: --mode reverse:http://immich-server:2283"
        )
