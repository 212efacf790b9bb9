"""The gateway as a process: mitmdump or mitmweb with the addon."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolbox import die_with_parent
from toolbox.pid_file import PidFile, kill_session
from toolbox.preflight import Port, StartError, check_ports, reachable
from toolbox.repository import PROJECT

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
    """What to run. ``options`` are more arguments for mitmproxy, which takes no option twice."""

    upstream: str
    host: str
    port: int
    metrics_port: int
    triton_url: str
    models: Path
    run_dir: Path
    options: Sequence[str] = ()
    web: WebInterface | None = None

    @property
    def ports(self) -> list[Port]:
        """What it listens on."""
        ports = [Port(self.port, "the gateway", "choose another one: make run PORT=…", self.host)]
        ports.append(Port(self.metrics_port, "the gateway's metrics", "choose another one: make run METRICS_PORT=…"))
        if self.web:
            ports.append(Port(self.web.port, "mitmweb", "choose another one: make run WEB=1 WEB_PORT=…"))
        return ports

    @property
    def command(self) -> list[str]:
        """The command line."""
        command = [
            str(Path(sys.executable).parent / ("mitmweb" if self.web else "mitmdump")),
            f"--scripts={ADDON}",
            f"--mode=reverse:{self.upstream}",
            f"--listen-host={self.host}",
            f"--listen-port={self.port}",
            f"--set=immich_triton_url={self.triton_url}",
            f"--set=immich_models={self.models}",
            f"--set=immich_metrics_listen=127.0.0.1:{self.metrics_port}",
        ]
        if self.web:
            command += ["--no-web-open-browser", "--web-host=127.0.0.1", f"--web-port={self.web.port}"]
            command.append(f"--set=web_password={self.web.password_hash}")
        return [*command, *self.options]


class GatewayProcess:
    """One gateway, which prints to our terminal."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self._pid_file = PidFile(settings.run_dir / "gateway.pid", f"--listen-port={settings.port}")
        self._process: subprocess.Popen[bytes] | None = None

    def reserve(self) -> None:
        """See that its ports are free. Raises `StartError`."""
        self._pid_file.end_predecessor(seconds=10)
        check_ports(self.settings.ports)

    def start(self) -> None:
        """Start it; `why_not_ready` tells when it answers."""
        self._process = subprocess.Popen(
            die_with_parent.wrap(self.settings.command),
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

    def why_not_ready(self) -> str | None:
        """Ask ``/ping``: None when every route is ready, else what is missing.

        Raises `StartError` when mitmproxy answers without our addon: it would forward everything, CLIP included. Seen
        when the script was being written at the moment of the start.
        """
        connection = http.client.HTTPConnection(reachable(self.settings.host), self.settings.port, timeout=3)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/ping", headers={"X-Request-ID": PING_ID})
                response = connection.getresponse()
                body = response.read().decode("utf-8", "replace")
            except (OSError, http.client.HTTPException) as error:
                return f"it does not answer: {error}"
        if response.getheader("X-Request-ID") != PING_ID:
            raise StartError(f"mitmproxy runs without {ADDON}, and would pass everything through; start again")
        return None if response.status == 200 else body

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
