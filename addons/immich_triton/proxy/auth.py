"""Addon: lets in only who knows the secret first segment of the path.

Immich sends its machine-learning requests without any credentials; from version 3.0 on it keeps a path in the
configured URL, so the path can carry a secret: ``http://gateway:3004/<token>/``.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, override

from mitmproxy import ctx
from mitmproxy.proxy.mode_specs import ProxyMode

from immich_triton.core.loopback import is_loopback
from immich_triton.proxy import wire
from immich_triton.proxy.answers import error_response
from immich_triton.proxy.flow_kind import set_kind

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.core.app import App
    from immich_triton.proxy.settings import ProxySettings

logger = logging.getLogger(__name__)

HIDDEN = "/…"
"""Stands in the log for a path that was refused: it may be the token with a slip of the pen."""


class Auth:
    """First of the addons that see a request: everything behind it sees paths without the token."""

    def __init__(self, app: App[ProxySettings]) -> None:
        self._app = app
        self._censor = Censor()
        logging.getLogger("mitmproxy.proxy.server").addFilter(self._censor)

    def configure(self, updated: AbstractSet[str]) -> None:
        """Keep the token out of what mitmproxy says about broken requests."""
        if "immich_path_token" in updated:
            self._censor.secret = self._app.settings.path_token

    def running(self) -> None:
        """Warn when anybody on the network may ask."""
        beyond = [host for host in listen_hosts() if not is_loopback(host)]
        if beyond and not self._app.settings.path_token:
            logger.warning(
                "everybody who reaches %s can use this gateway, and through it the stock ML: Immich ML has no "
                "password. Set immich_path_token (Immich 3.0 and later), or keep others out with a firewall",
                ", ".join(beyond),
            )

    def done(self) -> None:
        """Leave mitmproxy's logger as it was."""
        logging.getLogger("mitmproxy.proxy.server").removeFilter(self._censor)

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """Take the token out of the path, or answer 404."""
        token = self._app.settings.path_token
        if not token or flow.error or flow.is_replay:
            return  # who replays a request sits at mitmproxy itself, and the token is out of its path already
        first, rest = split_first(flow.request.path)
        # Constant time, also when the lengths differ.
        if hmac.compare_digest(first.encode("utf-8", "surrogateescape"), token.encode()):
            flow.request.path = rest
            return
        flow.request.path = HIDDEN
        set_kind(flow, self._app.id, "refused")
        self._app.observers.refused("no_token", 404)
        await wire.answer_at_once(flow, error_response(404, "Not Found"))


def split_first(path: str) -> tuple[str, str]:
    """Split ``/first/rest?query`` into ``first`` and ``/rest?query``."""
    first, slash, rest = path.removeprefix("/").partition("/")
    return first, slash + rest if slash else "/"


class Censor(logging.Filter):
    """Takes a secret out of log records; mitmproxy prints the bytes of requests that it cannot read."""

    secret = ""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the secret; every record stays."""
        if self.secret and self.secret in (text := record.getMessage()):
            record.msg, record.args = text.replace(self.secret, "…"), None
        return True


def listen_hosts() -> list[str]:
    """Return the addresses the gateway listens on; an empty option means all of them."""
    return [ProxyMode.parse(mode).listen_host(ctx.options.listen_host) or "0.0.0.0" for mode in ctx.options.mode]  # noqa: S104
