"""The site as a process: mitmproxy with the addon in front of the Immich server."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Final

from immich_triton.core.paths import PROJECT
from immich_triton.immich.site_ping import PING, PONG
from immich_triton.server import proxy_process
from immich_triton.server.preflight import Port, StartError, reachable
from immich_triton.server.proxy_process import ProxyProcess, ProxySettings, given

ADDON: Final = PROJECT / "addons/immich_web.py"


@dataclass(frozen=True)
class SiteSettings(ProxySettings):
    """What to run; its upstream is the Immich server."""

    @property
    def ports(self) -> list[Port]:
        """What it listens on."""
        remedies = "--web-port N", "--web-metrics-port N", "--web-inspect --web-inspect-port N"
        return proxy_process.listening(self, self.metrics, "the site", remedies)

    @property
    def metrics(self) -> str:
        """Where the metrics are served, ``HOST:PORT``; empty when nowhere."""
        return given(self.options, "web_metrics_listen", self.own_metrics)

    @property
    def command(self) -> list[str]:
        """The command line."""
        return proxy_process.command_line(self, ADDON, {"web_metrics_listen": self.metrics})


class SiteProcess(ProxyProcess):
    """One site. It answers a path of its own, which Immich would answer with a page."""

    def __init__(self, settings: SiteSettings) -> None:
        super().__init__("site", settings, settings.command, settings.ports)
        self.settings = settings

    def answers(self) -> bool:
        """Tell whether it answers, be it that Immich does not. Raises `StartError` when it runs without our addon."""
        try:
            status, body, _ = proxy_process.get(reachable(self.settings.host), self.settings.port, PING)
        except (OSError, http.client.HTTPException):
            return False
        if (status, body) != (200, PONG):
            raise StartError(f"mitmproxy runs without {ADDON}, and passes everything through")
        return True
