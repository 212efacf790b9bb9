"""mitmproxy with an addon of ours as a process, the same for both products: how it starts, ends and is found again."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from immich_triton.server import die_with_parent
from immich_triton.server.pid_file import PidFile, kill_session
from immich_triton.server.preflight import Port, check_ports

PING_ID = "supervisor"
"""Request id of the supervisor's own pings."""


@dataclass(frozen=True)
class WebInterface:
    """mitmweb instead of mitmdump. ``password_hash`` is Argon2, since everybody may read a command line."""

    port: int
    password_hash: str


@dataclass(frozen=True)
class ProxySettings:
    """What to run. ``options`` are more arguments for mitmproxy; an option that they set is left to them.

    ``metrics_port`` is None when nobody wants metrics, which are served at ``metrics_host``.
    """

    upstream: str
    host: str
    port: int
    metrics_port: int | None
    run_dir: Path
    options: Sequence[str] = ()
    web: WebInterface | None = None
    metrics_host: str = "127.0.0.1"

    @property
    def own_metrics(self) -> str:
        """Where these settings have the metrics served, ``HOST:PORT``; empty when nowhere."""
        host = f"[{self.metrics_host}]" if ":" in self.metrics_host else self.metrics_host
        return f"{host}:{self.metrics_port}" if self.metrics_port else ""


def listening(settings: ProxySettings, metrics: str, purpose: str, remedies: tuple[str, str, str]) -> list[Port]:
    """Return what a proxy for *purpose* listens on; *remedies* choose another port for it, its metrics, mitmweb."""
    choose = [f"choose another one: immich-triton run {remedy}" for remedy in remedies]
    ports = [Port(settings.port, purpose, choose[0], settings.host)]
    if metrics:
        host, _, port = metrics.rpartition(":")
        ports.append(Port(int(port), f"{purpose}'s metrics", choose[1], host.strip("[]")))
    if settings.web:
        ports.append(Port(settings.web.port, "mitmweb", choose[2]))
    return ports


def command_line(settings: ProxySettings, addon: Path, own: Mapping[str, str]) -> list[str]:
    """Return the command line for *addon*; of its *own* options those that the user sets are left out."""
    web = settings.web
    command = [
        str(Path(sys.executable).parent / ("mitmweb" if web else "mitmdump")),
        f"--scripts={addon}",
        f"--mode=reverse:{settings.upstream}",
        f"--listen-host={settings.host}",
        f"--listen-port={settings.port}",
        # mitmproxy takes no option twice.
        *(f"--set={name}={value}" for name, value in own.items() if given(settings.options, name, None) is None),
    ]
    if web:
        command += ["--no-web-open-browser", "--web-host=127.0.0.1", f"--web-port={web.port}"]
        command.append(f"--set=web_password={web.password_hash}")
    return [*command, *settings.options]


def given[T](options: Sequence[str], name: str, default: T) -> str | T:
    """Return the value that mitmproxy's arguments *options* give to option *name*, or *default*."""
    for before, argument in zip(["", *options], options, strict=False):
        setting = argument if before == "--set" else argument.removeprefix("--set=")
        if setting.startswith(f"{name}=") and (before == "--set" or argument.startswith("--set=")):
            return setting.partition("=")[2]
    return default


class ProxyProcess(ABC):
    """One proxy, which prints to our terminal. Its process id is in ``<name>.pid`` while it runs."""

    def __init__(self, name: str, settings: ProxySettings, command: Sequence[str], ports: Sequence[Port]) -> None:
        self._run_dir = settings.run_dir
        self._command = command
        self._ports = ports
        self._pid_file = PidFile(settings.run_dir / f"{name}.pid", f"--listen-port={settings.port}")
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether it answers. Raises `StartError` when mitmproxy answers without our addon."""

    def reserve(self) -> None:
        """Check that its ports are free. Raises `StartError`."""
        self._pid_file.end_predecessor(seconds=10)
        check_ports(self._ports)

    def start(self) -> None:
        """Start it; `answers` tells when it does. Raises OSError when this machine does not let us."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            die_with_parent.wrap(self._command),
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


def get(host: str, port: int, path: str) -> tuple[int, str, str | None]:
    """Return status, body and request id of an answer. Raises OSError or HTTPException."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=3)) as connection:
        connection.request("GET", path, headers={"X-Request-ID": PING_ID})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace"), response.getheader("X-Request-ID")
