"""Addon: options, and what mitmproxy must not be told, because it would undo the gateway's promises."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError

from immich_triton.ml.ledger import LedgerError
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.settings import Settings
from immich_triton.proxy import guard, reverse_proxy

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

    from immich_triton.ml.service import Service

logger = logging.getLogger(__name__)

BYPASSES = {"ignore_hosts", "allow_hosts", "tcp_hosts"}


UNUSABLE = (ValueError, RouteError, LedgerError, OptionsError)
"""What settings are refused with."""


class NotUsableError(RuntimeError):
    """The gateway cannot be configured now. No OptionsError: mitmproxy would never look at the script again."""


class Configuration:
    """First in the list: nothing works before it."""

    def __init__(self, service: Service, settings: type[Settings] = Settings) -> None:
        """Declare the options of *settings*, a product's own that extend those of machine learning."""
        self._service = service
        self._kind = settings

    def load(self, loader: Loader) -> None:
        """Put the guard in place, before anything can fail; declare the options."""
        guard.install(self._service.id)
        reverse_proxy.prepare(loader, self._kind.options())
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
        self._service.check(self._kind.read(ctx.options))

    def _is_usable(self) -> bool:
        try:
            self._check()
        except UNUSABLE:
            return False
        return True

    def configure(self, updated: AbstractSet[str]) -> None:
        """Check what has changed. Raises OptionsError, and then mitmproxy takes the change back."""
        refuse_bypasses(updated)
        reverse_proxy.correct(updated)
        if updated & {one.name for one in self._kind.options()}:
            try:
                self._service.configure(self._kind.read(ctx.options))
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
            reverse_proxy.check_mode(mode, "http://immich-machine-learning:3003")
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
