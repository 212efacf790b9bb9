"""The gateway as a process: mitmdump or mitmweb with the addon."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from immich_triton.core.paths import PROJECT
from immich_triton.server import die_with_parent
from immich_triton.server.pid_file import PidFile, kill_session
from immich_triton.server.preflight import Port, StartError, check_ports, reachable

ADDON = PROJECT / "addons/immich_ml.py"

PING_ID = "supervisor"
"""Request id of the supervisor's own pings; the gateway gives it back, and nobody else does."""


@dataclass(frozen=True)
class WebInterface:
    """mitmweb instead of mitmdump. ``password_hash`` is Argon2, since everybody may read a command line."""

    port: int
    password_hash: str


@dataclass(frozen=True)
class GatewaySettings:
    """What to run. ``options`` are more arguments for mitmproxy; an option that they set is left to them.

    ``metrics_port`` is None when nobody wants metrics; ``supervisor`` is the socket of `IdleSocket`, None without.
    """

    upstream: str
    host: str
    port: int
    metrics_port: int | None
    triton_url: str
    models: Path
    run_dir: Path
    options: Sequence[str] = ()
    web: WebInterface | None = None
    metrics_host: str = "127.0.0.1"
    addon: Path = ADDON
    supervisor: Path | None = None

    @property
    def ports(self) -> list[Port]:
        """What it listens on."""
        ports = [Port(self.port, "the gateway", "choose another one: immich-triton run --port N", self.host)]
        if self.metrics:
            remedy = "choose another one: immich-triton run --metrics-port N"
            host, _, port = self.metrics.rpartition(":")
            ports.append(Port(int(port), "the gateway's metrics", remedy, host.strip("[]")))
        if self.web:
            ports.append(
                Port(self.web.port, "mitmweb", "choose another one: immich-triton run --inspect --inspect-port N")
            )
        return ports

    @property
    def metrics(self) -> str:
        """Where the metrics are served, ``HOST:PORT``; empty when nowhere."""
        host = f"[{self.metrics_host}]" if ":" in self.metrics_host else self.metrics_host
        own = f"{host}:{self.metrics_port}" if self.metrics_port else ""
        return given(self.options, "immich_metrics_listen", own)

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
        own = self.own_options
        command = [
            str(Path(sys.executable).parent / ("mitmweb" if self.web else "mitmdump")),
            f"--scripts={self.addon}",
            f"--mode=reverse:{self.upstream}",
            f"--listen-host={self.host}",
            f"--listen-port={self.port}",
            # mitmproxy takes no option twice.
            *(f"--set={name}={value}" for name, value in own.items() if given(self.options, name, None) is None),
        ]
        if self.web:
            command += ["--no-web-open-browser", "--web-host=127.0.0.1", f"--web-port={self.web.port}"]
            command.append(f"--set=web_password={self.web.password_hash}")
        return [*command, *self.options]


def given[T](options: Sequence[str], name: str, default: T) -> str | T:
    """Return the value that mitmproxy's arguments *options* give to option *name*, or *default*."""
    for before, argument in zip(["", *options], options, strict=False):
        setting = argument if before == "--set" else argument.removeprefix("--set=")
        if setting.startswith(f"{name}=") and (before == "--set" or argument.startswith("--set=")):
            return setting.partition("=")[2]
    return default


class GatewayProcess:
    """One gateway, which prints to our terminal."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self._pid_file = PidFile(settings.run_dir / "gateway.pid", f"--listen-port={settings.port}")
        self._process: subprocess.Popen[bytes] | None = None

    def reserve(self) -> None:
        """Check that its ports are free. Raises `StartError`."""
        self._pid_file.end_predecessor(seconds=10)
        check_ports(self.settings.ports)

    def start(self) -> None:
        """Start it; `answers` tells when it does. Raises OSError when this machine does not let us."""
        self.settings.run_dir.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            die_with_parent.wrap(self.settings.command),
            # mitmproxy prints without flushing: under systemd or in a pipe warnings would come 8 kB late, or never.
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            # Ctrl-C reaches the supervisor alone, which stops things in order.
            start_new_session=True,
        )
        self._pid_file.write(self._process.pid)

    def exit_code(self) -> int | None:
        """Return None while it runs, and when it was never started."""
        return None if self._process is None else self._process.poll()

    def running(self) -> bool:
        """Tell whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

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
        status, body, request_id = _get(reachable(self.settings.host), self.settings.port, "/ping")
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
        status, body, _ = _get(reachable(host.strip("[]")), int(port), "/readyz")
        if status == 200:
            return None
        unready: dict[str, str] = json.loads(body).get("unready", {})
        return "; ".join(f"{model}: {why}" for model, why in unready.items())

    def terminate(self) -> None:
        """Ask it to finish the requests in flight and end."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """End it at once, if it still runs, and clean up."""
        if self._process is not None:
            kill_session(self._process.pid)
            self._process.wait()
            self._process = None
            self._pid_file.remove()


def _get(host: str, port: int, path: str) -> tuple[int, str, str | None]:
    """Return status, body and request id of an answer. Raises OSError or HTTPException."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=3)) as connection:
        connection.request("GET", path, headers={"X-Request-ID": PING_ID})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace"), response.getheader("X-Request-ID")
