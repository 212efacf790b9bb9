"""mitmproxy as both products need it: a version that is known, options read at once, HTTP/1.1 in reverse mode."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from mitmproxy import ctx, version
from mitmproxy.exceptions import OptionsError
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

from immich_triton.proxy import hooks, http1, wire

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

    from immich_triton.core.options import Option

logger = logging.getLogger(__name__)


def prepare(loader: Loader, declared: Iterable[Option]) -> None:
    """See that this is the mitmproxy we know, mend its HTTP/1, add options and read the command line's at once.

    A value that is given twice, or is no number where one belongs, would let mitmproxy go on without the script and
    without a word. An error in the log makes it end. Raises OptionsError.
    """
    try:
        wire.check_version(version.VERSION)
        http1.install()
        hooks.install()
        for one in declared:
            loader.add_option(one.name, one.kind.type, one.default, one.help)
        ctx.options.process_deferred()
    except (OptionsError, ValueError) as error:
        logger.error("immich-triton: %s", error)  # noqa: TRY400 - the message says it all
        raise OptionsError(str(error)) from error


def correct(updated: AbstractSet[str]) -> None:
    """Set back what of the options *updated* would not work."""
    if "http2" in updated and ctx.options.http2:
        # mitmproxy 12.2 hands on a body of HTTP/2 that has no length as if it were the next request. And limits and
        # time-outs rely on one request at a time per connection.
        ctx.options.update(http2=False)
    if "onboarding" in updated and ctx.options.onboarding:
        # Pages of mitmproxy's own for whoever calls this host mitm.it; each request is asked for its host.
        ctx.options.update(onboarding=False)
    if "connection_strategy" in updated and ctx.options.connection_strategy != "lazy":
        # Eager connects to the upstream first, and cuts off even what we answer ourselves when that is down.
        ctx.options.update(connection_strategy="lazy")


def check_mode(spec: str, upstream: str) -> None:
    """Raise OptionsError for any mode but ``reverse:http(s)``; *upstream* is an example of one that will do."""
    mode = ProxyMode.parse(spec)
    if not isinstance(mode, ReverseMode) or mode.scheme not in ("http", "https"):
        raise OptionsError(
            f"immich-triton works in reverse mode only, not in mode {spec!r}; start it with: --mode reverse:{upstream}"
        )
