#!/usr/bin/env python3
"""Run the gateway and the embedded Triton together, until Ctrl-C or SIGTERM; with --web the site too.

The site and the machine learning are two products that happen to have one supervisor. Neither takes the other down: a
site that dies is started again for as long as it takes, and where the machine learning cannot be started or kept
running, it is started anew from the beginning while people go on looking at their photos. Only what is wrong before
anything was started ends the program.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from immich_triton.cli import run_gpu, run_mt_photos, run_options
from immich_triton.cli.run_options import Parts
from immich_triton.core.command import COMMAND, environment
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.routes import RouteTable, load_routes
from immich_triton.server import preflight
from immich_triton.server.back_off import BackOff
from immich_triton.server.gateway_process import GatewayProcess
from immich_triton.server.idle import Idle
from immich_triton.server.idle_socket import IdleSocket
from immich_triton.server.preflight import StartError
from immich_triton.server.proxy_care import ProxyCare
from immich_triton.server.renewal import renew
from immich_triton.server.site_process import SiteProcess
from immich_triton.server.stop_signals import StopSignals
from immich_triton.server.triton_process import TritonProcess

DRAIN_SECONDS: Final = 3660.0
"""More than the gateway ever takes to finish requests in flight (immich_drain_timeout); Triton is there meanwhile."""
PATIENCE_SECONDS: Final = 3.0
"""When a stop takes longer, we say why."""
READY_SECONDS: Final = 20.0
"""How long the gateway may take to see that the models are ready."""
TICK: Final = 0.1


class Stopped(Exception):  # noqa: N818 - not an error
    """The user asked to stop."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Returns 0 after a stop that was asked for, 1 when a part cannot be started or kept running."""
    with StopSignals() as asked:
        try:
            _run(run_options.read(arguments), asked)
        except Stopped:
            print("stopped", flush=True)
            return 0
        except (StartError, RouteError, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 1
    raise AssertionError("unreachable")


class Watch:
    """Lets time pass: looks after the site, if there is one, and whether somebody asked to stop."""

    def __init__(self, asked: StopSignals, site: SiteProcess | None) -> None:
        self.asked = asked
        self.site = site
        self._care: ProxyCare | None = None

    def start_site(self, page: str) -> None:
        """Start the site, first of all: people wait for it, and it needs nothing of the rest. *page* is mitmweb's."""
        if self.site is None:
            return
        settings = self.site.settings
        reach = "" if _connects(settings.upstream) else " (nothing answers there now: people get 502)"
        print(f"site: starting on port {settings.port}, in front of {settings.upstream}{reach}", flush=True)
        if page:
            print(f"site: mitmweb at {page}", flush=True)
        self._care = ProxyCare(
            self.site, lambda text: print(f"site: {text}", flush=True), beside="the machine learning goes on"
        )
        self._care.start()

    def tick(self, seconds: float = TICK) -> None:
        """Wait a little. Raises `Stopped`."""
        if self.asked.wait(seconds):
            raise Stopped
        self.look()

    def look(self) -> None:
        """Look after the site."""
        if self._care is not None:
            self._care.poll()


def _run(parts: Parts, asked: StopSignals) -> None:
    """Start everything and watch over it. Ends with an exception: `Stopped` when that is what the user wants."""
    site = SiteProcess(parts.site) if parts.site else None
    learning = MachineLearning(parts)
    watch = Watch(asked, site)
    back_off = BackOff()
    try:
        _reserve(learning, site)
        watch.start_site(parts.pages.get("site", ""))
        while True:
            began = time.monotonic()
            try:
                learning.run(watch)
            except (StartError, RouteError, OSError) as error:
                if site is None:
                    raise
                pause = back_off.after(time.monotonic() - began)
                print(
                    f"error: {error}\nthe machine learning is started anew in {pause:g} s; the site goes on",
                    file=sys.stderr,
                    flush=True,
                )
            learning.stop(watch)
            _wait(pause, watch)
            learning = MachineLearning(parts)
    finally:
        if site is not None:
            site.terminate()
        learning.stop(watch, stopping=True)
        if site is not None:
            site.end()


def _reserve(learning: MachineLearning, site: SiteProcess | None) -> None:
    """See that nothing stands in the way of any part, before one of them is started. Raises `StartError`."""
    learning.reserve()
    ports = learning.ports
    if site is not None:
        site.reserve()
        ports = [*ports, *site.settings.ports]
    preflight.check_ports(ports)


def _wait(seconds: float, watch: Watch) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        watch.tick()


class MachineLearning:
    """Triton and the gateways in front of it, for one start."""

    def __init__(self, parts: Parts) -> None:
        idle = Idle(parts.idle_unload)
        self._parts = parts
        self._triton = TritonProcess(parts.triton, lambda text: print(f"triton: {text}", flush=True), idle)
        self._gateway = GatewayProcess(parts.gateway)
        self._mt_photos = GatewayProcess(parts.mt_photos) if parts.mt_photos else None
        self._door = IdleSocket(parts.gateway.run_dir, idle) if parts.idle_unload else None

    @property
    def _gateways(self) -> list[GatewayProcess]:
        return [self._gateway, *([self._mt_photos] if self._mt_photos else [])]

    @property
    def ports(self) -> list[preflight.Port]:
        """What all of them listen on."""
        return [*self._parts.triton.ports, *(port for each in self._gateways for port in each.settings.ports)]

    def reserve(self) -> None:
        """Check this machine, ports and folders. Raises `StartError`."""
        self._triton.reserve()
        for gateway in self._gateways:
            gateway.reserve()
        if not self._mt_photos:
            run_mt_photos.forget(self._parts.gateway.run_dir)

    def run(self, watch: Watch) -> None:
        """Start all and look after them. Ends with an exception: `Stopped`, or what makes it useless to go on."""
        triton, models, cards = self._triton, self._parts.gateway.models, self._parts.cards
        began = time.monotonic()
        if self._parts.export:
            _export_if_needed(models, watch, gpu=bool(cards))
        for sentence in run_gpu.check(cards, models) if cards else ():
            print(f"warning: {sentence}", flush=True)
        for sentence in renew(models):
            print(f"models: {sentence}", flush=True)
        routes = load_routes(models)
        print(f"triton: starting over {models} (log: {triton.log_path})", flush=True)
        triton.start()
        cares = [
            ProxyCare(self._gateway, lambda text: print(f"gateway: {text}", flush=True), name="the gateway"),
            *([run_mt_photos.care(self._mt_photos)] if self._mt_photos else []),
        ]
        while not triton.live:
            self._tick(watch)
        if self._door:
            self._door.open()
        # Before any model is loaded: whoever asks waits in the gateway for what he asked for, and no longer.
        for care in cares:
            care.start()
        while not triton.ready:
            self._tick(watch, cares)
        unready = self._wait_until_ready(watch, cares)
        self._tell(routes, watch.site, time.monotonic() - began)
        if unready:
            print(f"warning: not every route is ready: {unready}", flush=True)
        while True:
            self._tick(watch, cares)

    def stop(self, watch: Watch, *, stopping: bool = False) -> None:
        """Stop the gateways first, so that requests in flight still get their answer, then Triton.

        *stopping*: the site was told as well, and is waited for; else it is looked after meanwhile.
        """
        triton, site, asked = self._triton, watch.site, watch.asked
        signals, began, told = asked.count, time.monotonic(), False
        for gateway in self._gateways:
            gateway.terminate()
        waited_for = [*self._gateways, *([site] if stopping and site else [])]
        while (
            any(each.running() for each in waited_for)
            and time.monotonic() - began < DRAIN_SECONDS
            and asked.count == signals
        ):
            time.sleep(TICK)
            if triton.was_ready:
                triton.poll()  # one that dies now is started again, for the last requests
            if not stopping:
                watch.look()
            if not told and time.monotonic() - began > PATIENCE_SECONDS:
                print("waiting for requests in flight; Ctrl-C again ends them", flush=True)
                told = True
        for gateway in self._gateways:
            gateway.end()
        triton.stop()
        if self._door:
            self._door.close()

    def _tick(self, watch: Watch, cares: Sequence[ProxyCare] = ()) -> None:
        watch.tick()
        self._triton.poll()
        for care in cares:
            care.poll()
        if self._door and cares:
            self._door.poll()

    def _wait_until_ready(self, watch: Watch, cares: Sequence[ProxyCare]) -> str | None:
        """Wait until every route is ready. Returns what is missing when that does not happen in time."""
        deadline = time.monotonic() + READY_SECONDS
        while (
            (unready := self._gateway.why_not_ready()) or not all(care.up for care in cares)
        ) and time.monotonic() < deadline:
            # A model that failed to load does not come by waiting.
            if self._triton.failed and all(care.up for care in cares):
                break
            self._tick(watch, cares)
        return unready

    def _tell(self, routes: RouteTable, site: SiteProcess | None, seconds: float) -> None:
        gateway, triton, cards = self._parts.gateway, self._parts.triton, self._parts.cards
        reach = "" if _connects(gateway.upstream) else " (nothing answers there now: such requests get 502)"
        lines = [
            f"immich-triton is up after {seconds:.1f} s; Ctrl-C stops it",
            f"  Immich asks      {_url(gateway.host, gateway.port)}",
            f"  metrics          http://{gateway.metrics}/metrics, health at /healthz and /readyz"
            if gateway.metrics
            else "  metrics          none",
            f"  Triton           {triton.url}, metrics {triton.metrics_url}",
            *(
                f"  routed           {line}"
                for line in routes.describe() or ["nothing: immich-triton export ocr (clip, faces) makes models"]
            ),
            f"  passes through   everything else, to {gateway.upstream}{reach}",
            *(run_gpu.summary(cards, gateway.models) if cards else ()),
            *([run_mt_photos.summary(self._parts.mt_photos)] if self._parts.mt_photos else []),
            *_about_the_site(site),
        ]
        if page := self._parts.pages.get("gateway"):
            lines.append(f"  mitmweb          {page}")
        print("\n".join(lines), flush=True)


def _about_the_site(site: SiteProcess | None) -> list[str]:
    if site is None:
        return []
    settings = site.settings
    metrics = f", metrics http://{settings.metrics}/metrics" if settings.metrics else ""
    return [f"  people go to     {_url(settings.host, settings.port)}, in front of {settings.upstream}{metrics}"]


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _export_if_needed(models: Path, watch: Watch, *, gpu: bool) -> None:
    there = models.is_dir() and any(route.task == "ocr" for route in load_routes(models).routes)
    if there and not (gpu and run_gpu.ocr_on_cpu(models)):
        return
    print(f"making the OCR models in {models}", flush=True)
    more = run_gpu.export_arguments(models) if gpu else []
    with subprocess.Popen([*COMMAND, "export", "ocr", "--models", str(models), *more], env=environment()) as export:
        while export.poll() is None:
            try:
                watch.tick()
            except Stopped:
                export.terminate()
                raise
    if export.returncode != 0:
        raise StartError(f"immich-triton export ocr ended with exit code {export.returncode}; see above")


def _connects(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
