"""Addon: options, and what mitmproxy must not be told, because it would undo the gateway's promises."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx, version
from mitmproxy.exceptions import OptionsError
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

from immich_triton import guard, http1, wire
from immich_triton.ledger import LedgerError
from immich_triton.routes import RouteError
from immich_triton.settings import SETTINGS, Settings, declare

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

    from immich_triton.service import Service

logger = logging.getLogger(__name__)

BYPASSES = {"ignore_hosts", "allow_hosts", "tcp_hosts"}


UNUSABLE = (ValueError, RouteError, LedgerError, OptionsError)
"""What settings are refused with."""


class NotUsableError(RuntimeError):
    """The gateway cannot be configured now. No OptionsError: mitmproxy would never look at the script again."""


class Configuration:
    """First in the list: nothing works before it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def load(self, loader: Loader) -> None:
        """Put the guard in place, see that this is the mitmproxy we know, declare the options.

        The guard comes first, and values from the command line are read at once: one that is given twice, or is no
        number where one belongs, would let mitmproxy go on without the script and without a word. An error in the log
        makes it end.
        """
        guard.install(self._service.id)
        try:
            wire.check_version(version.VERSION)
            http1.install()
            declare(loader)
            ctx.options.process_deferred()
        except (OptionsError, ValueError) as error:
            logger.error("immich-triton: %s", error)  # noqa: TRY400 - the message says it all
            raise OptionsError(str(error)) from error
        if guard.was_there_before():
            self._refuse_now()

    def _refuse_now(self) -> None:
        """Let a script that is loaded again fail as a whole while it could not be configured: half of it is no gateway.

        Raises `NotUsableError`. The guard then has it loaded once more as soon as it can be configured.
        """
        try:
            self._check()
        except UNUSABLE as error:
            raise self._give_up(str(error)) from error

    def _give_up(self, why: str) -> NotUsableError:
        guard.retire(self._service.id)
        guard.load_again_when(self._is_usable)
        return NotUsableError(
            f"immich-triton: {why}. Every request gets 503 until this is mended; that is looked for every second"
        )

    def _check(self) -> None:
        refuse_bypasses(ctx.options.keys())
        self._service.check(Settings.read(ctx.options))

    def _is_usable(self) -> bool:
        try:
            self._check()
        except UNUSABLE:
            return False
        return True

    def configure(self, updated: AbstractSet[str]) -> None:
        """Check what has changed. Raises OptionsError, and then mitmproxy takes the change back."""
        refuse_bypasses(updated)
        if "http2" in updated and ctx.options.http2:
            # Immich speaks HTTP/1.1; limits and time-outs rely on one request at a time per connection.
            ctx.options.update(http2=False)
        if "connection_strategy" in updated and ctx.options.connection_strategy != "lazy":
            # Eager connects to the upstream first, and cuts off even what we answer ourselves when that is down.
            ctx.options.update(connection_strategy="lazy")
        if updated & {setting.name for setting in SETTINGS}:
            try:
                self._service.configure(Settings.read(ctx.options))
            except UNUSABLE as error:
                raise OptionsError(f"immich-triton: {error}") from error

    def running(self) -> None:
        """Have the script brought back should mitmproxy lose it; start to watch the routes."""
        guard.watch(self)
        if not self._service.is_configured:
            # The script was added to a mitmproxy that runs, and `configure` refused its settings.
            error = self._give_up("its settings were refused when it was loaded")
            # Raised in a task that nobody awaits, so that no other addon of ours begins to work.
            logger.error("%s", error)
            raise error
        self._service.watch()
        self._service.look_after_doubts()

    def done(self) -> None:
        """Stop; from now on the guard answers."""
        guard.retire(self._service.id)
        self._service.close()


def refuse_bypasses(updated: AbstractSet[str]) -> None:
    """Raise OptionsError when one of the options *updated* lets requests go past the gateway."""
    if "mode" in updated:
        for mode in ctx.options.mode:
            check_mode(mode)
    if "stream_large_bodies" in updated and ctx.options.stream_large_bodies:
        raise OptionsError(
            "stream_large_bodies cannot be used with immich-triton: it sends large /predict requests upstream "
            "before Triton is asked. What passes through is streamed anyway."
        )
    for option in BYPASSES & updated:
        if getattr(ctx.options, option):
            raise OptionsError(f"{option} cannot be used with immich-triton: what it names goes past the gateway")
    if "validate_inbound_headers" in updated and not ctx.options.validate_inbound_headers:
        raise OptionsError(
            "validate_inbound_headers cannot be switched off with immich-triton: a request that we and the stock "
            "ML read differently could be smuggled past us"
        )


def check_mode(spec: str) -> None:
    """Raise OptionsError for any mode but ``reverse:http(s)``."""
    mode = ProxyMode.parse(spec)
    if not isinstance(mode, ReverseMode) or mode.scheme not in ("http", "https"):
        raise OptionsError(
            f"immich-triton works in reverse mode only, not in mode {spec!r}; "
            "start it with: --mode reverse:http://immich-machine-learning:3003"
        )
