"""The gateway as a process: mitmproxy with the addon in front of the machine learning."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immich_triton.core.paths import PROJECT
from immich_triton.server import proxy_process
from immich_triton.server.preflight import Port, StartError, reachable
from immich_triton.server.proxy_process import PING_ID, ProxyProcess, ProxySettings, given

ADDON = PROJECT / "addons/immich_ml.py"

NAME: Final = "gateway"
PID_FILE: Final = f"{NAME}.pid"
"""Where its process id lies, in the folder of its run."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(ProxySettings):
    """What to run, and what the gateway answers from.

    ``supervisor`` is the socket of `IdleSocket`, None without.
    """

    triton_url: str
    models: Path
    addon: Path = ADDON
    supervisor: Path | None = None

    @property
    def ports(self) -> list[Port]:
        """What it listens on."""
        remedies = "--port N", "--metrics-port N", "--inspect --inspect-port N"
        return proxy_process.listening(self, self.metrics, "the gateway", remedies)

    @property
    def metrics(self) -> str:
        """Where the metrics are served, ``HOST:PORT``; empty when nowhere."""
        return given(self.options, "immich_metrics_listen", self.own_metrics)

    @property
    def own_options(self) -> dict[str, str]:
        """What follows from these settings, as mitmproxy options."""
        return {
            "immich_triton_url": self.triton_url,
            "immich_models": str(self.models),
            "immich_metrics_listen": self.metrics,
            **({"immich_supervisor": str(self.supervisor)} if self.supervisor else {}),
        }

    @property
    def command(self) -> list[str]:
        """The command line."""
        return proxy_process.command_line(self, self.addon, self.own_options)


class GatewayProcess(ProxyProcess):
    """One gateway. Who answers its ping gives the request id back, and nobody else does."""

    def __init__(self, settings: GatewaySettings) -> None:
        super().__init__(NAME, settings, settings.command, settings.ports)
        self.settings = settings

    def answers(self) -> bool:
        """Tell whether it answers, be it that not every route is ready. Raises `StartError` like `why_not_ready`."""
        try:
            self._ping()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def why_not_ready(self) -> str | None:
        """Ask ``/ping``: None when every route is ready, else what is missing.

        Raises `StartError` when mitmproxy answers without our addon: it would forward everything, CLIP included. Seen
        when the script was being written at the moment of the start.
        """
        try:
            status, body = self._ping()
            # It does not tell us more than other strangers where a path token is set.
            return self._why_not_healthy() if status == 404 else None if status == 200 else body
        except (OSError, http.client.HTTPException) as error:
            return f"it does not answer: {error}"

    def _ping(self) -> tuple[int, str]:
        status, body, request_id = proxy_process.get(reachable(self.settings.host), self.settings.port, "/ping")
        if request_id != PING_ID:
            raise StartError(
                f"mitmproxy runs without {self.settings.addon}, and would pass everything through; start again"
            )
        return status, body

    def _why_not_healthy(self) -> str | None:
        """Ask ``/readyz``, where there is one: beside the port that a token guards."""
        if not self.settings.metrics:
            return None
        host, _, port = self.settings.metrics.rpartition(":")
        status, body, _ = proxy_process.get(reachable(host.strip("[]")), int(port), "/readyz")
        if status == 200:
            return None
        unready: dict[str, str] = json.loads(body).get("unready", {})
        return "; ".join(f"{model}: {why}" for model, why in unready.items())
