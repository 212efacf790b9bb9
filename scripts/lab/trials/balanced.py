"""Two Tritons behind a HAProxy, and a gateway in front: what stands on several machines, on this one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import requests

from harness.ports import free_ports
from harness.program import Program, eventually
from immich_triton.core import direct_requests
from immich_triton.core.paths import PROJECT
from immich_triton.server.triton_settings import TritonSettings

CONFIGURATION: Final = PROJECT / "deploy/haproxy/haproxy.cfg"
GATEWAY: Final = PROJECT / "addons/immich_ml.py"
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - fixed by POSIX
INFERENCES: Final = re.compile(r"^nv_inference_request_success\{.*\} (\d+)$", re.MULTILINE)


@dataclass
class Triton:
    """One of the servers, at ports that it keeps; ``models`` may be another folder after another start."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    metrics_port: int = field(default_factory=lambda: free_ports(1)[0])
    program: Program | None = None

    def start(self, models: Path) -> None:
        """Start it over *models*."""
        ports = [f"--http-port={self.port}", f"--metrics-port={self.metrics_port}"]
        arguments = [f"--models={models}", f"--run-dir={self.folder}", "--only-routed", *ports]
        self.program = Program.start("triton", arguments, self.folder / "console.log")

    def vanish(self) -> None:
        """End it and whoever would start it again, at once: the machine is gone."""
        if self.program is not None:
            pid = int((self.folder / "triton.pid").read_text())
            self.program.process.kill()
            self.program.process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.program = None

    def shared_memory(self) -> int:
        """Return how much of /dev/shm it has taken, in bytes; its pools grow and are never given back."""
        settings = TritonSettings(self.folder, self.port, self.metrics_port, self.folder.resolve())
        return sum(512 * file.stat().st_blocks for file in SHARED_MEMORY.glob(f"{settings.shm_prefix}*"))

    def answered(self) -> int:
        """Return how many requests it has answered since its start."""
        text = direct_requests.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10).text
        return sum(map(int, INFERENCES.findall(text)))


class Balancer:
    """HAProxy with the project's own configuration, at addresses of here."""

    def __init__(self, folder: Path, tritons: Sequence[Triton], pipelines: Sequence[str]) -> None:
        self.port, self._status_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self._tritons = dict(zip(("one", "two"), tritons, strict=True))
        file = folder / "haproxy.cfg"
        file.write_text(self._configuration(pipelines), encoding="utf-8")
        self.program = Program.start("-f", [file], folder / "haproxy.log", program=["haproxy", "-db"])

    def _configuration(self, pipelines: Sequence[str]) -> str:
        text = CONFIGURATION.read_text(encoding="utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        for name, triton in self._tritons.items():
            text = re.sub(rf"server {name} \S+", f"server {name} 127.0.0.1:{triton.port}", text)
        check = re.search(r" +http-check connect\n.*\n.*\n", text)
        if check is None or "/v2/models/ocr/ready" not in check[0]:
            raise ValueError(f"{CONFIGURATION} has no check of the pipeline ocr")
        text = text.replace(check[0], "".join(check[0].replace("/ocr/", f"/{name}/") for name in pipelines))
        page = "\n    http-request use-service prometheus-exporter\n"
        return f"{text}\nfrontend status\n    bind 127.0.0.1:{self._status_port}{page}"

    def up(self) -> set[str]:
        """Return the names of the servers that it gives requests to."""
        try:
            text = direct_requests.get(f"http://127.0.0.1:{self._status_port}/metrics", timeout=10).text
        except requests.RequestException:
            return set()
        pattern = r'^haproxy_server_status\{proxy="tritons",server="(\w+)",state="UP"\} 1$'
        return set(re.findall(pattern, text, re.MULTILINE))

    def wait_until_up(self, *names: str) -> None:
        """Wait until exactly *names* get requests."""
        self.program.wait_until(lambda: self.up() == {*names})


@dataclass
class Site:
    """Everything that runs."""

    tritons: Mapping[str, Triton]
    balancer: Balancer
    gateway: Program
    url: str


@contextlib.contextmanager
def running(folder: Path, models: Path, pipelines: Sequence[str], settings: Mapping[str, object]) -> Iterator[Site]:
    """Run two Tritons over *models*, HAProxy, and a gateway with more *settings*, while the block lasts."""
    tritons = {name: Triton(folder / name) for name in ("one", "two")}
    port, nobody = free_ports(2)
    with contextlib.ExitStack() as stack:
        for triton in tritons.values():
            stack.callback(triton.vanish)
            triton.start(models)
        balancer = Balancer(folder, [*tritons.values()], pipelines)
        stack.callback(balancer.program.stop)
        balancer.wait_until_up("one", "two")
        options = {
            "immich_models": models,
            "immich_triton_url": balancer.url,
            "immich_state_dir": folder / "state",
            "immich_metrics_listen": "",
            "confdir": folder / "confdir",
            **settings,
        }
        line = [f"--mode=reverse:http://127.0.0.1:{nobody}", "--listen-host=127.0.0.1", f"--listen-port={port}"]
        line += [f"--set={name}={value}" for name, value in options.items()]
        mitmdump = Path(sys.executable).with_name("mitmdump")
        gateway = Program.start(f"--scripts={GATEWAY}", line, folder / "gateway.log", program=[mitmdump])
        stack.callback(gateway.stop)
        url = f"http://127.0.0.1:{port}"
        gateway.wait_until(lambda: _ready(url))
        yield Site(tritons, balancer, gateway, url)


def _ready(url: str) -> bool:
    try:
        return direct_requests.get(f"{url}/ping", timeout=5).ok
    except requests.RequestException:
        return False


def check_haproxy() -> str:
    """Return HAProxy's version line. Raises FileNotFoundError, which says what to install."""
    try:
        done = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise FileNotFoundError("haproxy is not installed: apt-get install haproxy") from None
    return done.stdout.splitlines()[0]


def wait_for_answers(triton: Triton, more_than: int) -> bool:
    """Wait until *triton* has answered more requests than that."""
    return eventually(lambda: triton.answered() > more_than)
