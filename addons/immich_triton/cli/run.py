#!/usr/bin/env python3
"""Run the gateway and the embedded Triton together, until Ctrl-C or SIGTERM.

Makes the default OCR models first when the model repository has none. Several instances can run beside each other, each
with its own ports.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import secrets
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import argon2  # mitmproxy's own dependency, for this very option

from immich_triton.core.command import COMMAND, environment
from immich_triton.core.paths import MODELS, RUN
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.routes import RouteTable, load_routes
from immich_triton.server import preflight
from immich_triton.server.gateway_care import GatewayCare
from immich_triton.server.gateway_process import GatewayProcess, GatewaySettings, WebInterface, given
from immich_triton.server.idle import Idle
from immich_triton.server.idle_socket import IdleSocket
from immich_triton.server.preflight import StartError
from immich_triton.server.renewal import renew
from immich_triton.server.stop_signals import StopSignals
from immich_triton.server.triton_process import TritonProcess
from immich_triton.server.triton_settings import TritonSettings

DRAIN_SECONDS = 3660.0
"""More than the gateway ever takes to finish requests in flight (immich_drain_timeout); Triton is there meanwhile."""
PATIENCE_SECONDS = 3.0
"""When a stop takes longer, we say why."""
READY_SECONDS = 20.0
"""How long the gateway may take to see that the models are ready."""
TICK = 0.1
OURS = {
    "immich_triton_url": "immich-triton run starts a Triton of its own. For one elsewhere run the gateway alone: "
    "mitmdump -s addons/immich_ml.py --mode reverse:http://127.0.0.1:3003 -p 3004 --set immich_triton_url=…",
    "immich_supervisor": "that is immich-triton run itself; --idle-unload 0 keeps the models loaded",
    "immich_models": "choose the model repository with immich-triton run --models DIR",
}
"""mitmproxy options that follow from other settings, and what to do instead."""


class Stopped(Exception):  # noqa: N818 - not an error
    """The user asked to stop."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Returns 0 after a stop that was asked for, 1 when a part cannot be started or kept running."""
    options = _parse(arguments)
    with StopSignals() as asked:
        try:
            _run(options, asked)
        except Stopped:
            print("stopped", flush=True)
            return 0
        except (StartError, RouteError, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 1
    raise AssertionError("unreachable")


def _run(options: argparse.Namespace, asked: StopSignals) -> None:
    """Start everything and watch over it. Ends with an exception: `Stopped` when that is what the user wants."""
    began = time.monotonic()
    models = options.models.resolve()
    more = shlex.split(options.options)
    _refuse_what_is_ours(more)
    run_dir = (options.run_dir or RUN / str(options.port)).resolve()
    idle = Idle(options.idle_unload)
    door = IdleSocket(run_dir, idle) if options.idle_unload else None
    triton = TritonProcess(
        TritonSettings(
            models=models,
            http_port=options.triton_http_port,
            metrics_port=options.triton_metrics_port,
            run_dir=run_dir / "triton",
            only_routed=True,
            port_remedy="choose others: immich-triton run --triton-http-port N --triton-metrics-port N",
        ),
        lambda text: print(f"triton: {text}", flush=True),
        idle,
    )
    password = secrets.token_urlsafe(12)
    gateway = GatewayProcess(
        GatewaySettings(
            upstream=_upstream(options.upstream),
            host=options.host,
            port=options.port,
            metrics_port=options.metrics_port,
            triton_url=triton.settings.url,
            models=models,
            run_dir=run_dir,
            options=more,
            web=WebInterface(options.inspect_port, argon2.PasswordHasher().hash(password)) if options.inspect else None,
            supervisor=door.path if door else None,
        )
    )
    try:
        triton.reserve()
        gateway.reserve()
        preflight.check_ports([*triton.settings.ports, *gateway.settings.ports])
        if options.export:
            _export_if_needed(models, asked)
        for sentence in renew(models):
            print(f"models: {sentence}", flush=True)
        routes = load_routes(models)
        print(f"triton: starting over {models} (log: {triton.log_path})", flush=True)
        triton.start()
        care = GatewayCare(gateway, lambda text: print(f"gateway: {text}", flush=True))
        while not triton.live:
            _tick(triton, asked)
        if door:
            door.open()
        # Before any model is loaded: whoever asks waits in the gateway for what he asked for, and no longer.
        care.start()
        while not triton.ready:
            _tick(triton, asked, care, door)
        unready = _wait_for(gateway, triton, asked, care)
        _summary(gateway.settings, triton, routes, time.monotonic() - began)
        if gateway.settings.web:
            print(f"  mitmweb          http://127.0.0.1:{gateway.settings.web.port}/  password {password}", flush=True)
        if unready:
            print(f"warning: not every route is ready: {unready}", flush=True)
        while True:
            _tick(triton, asked, care, door)
    finally:
        _stop(gateway, triton, asked)
        if door:
            door.close()


def _tick(
    triton: TritonProcess, asked: StopSignals, care: GatewayCare | None = None, door: IdleSocket | None = None
) -> None:
    if asked.wait(TICK):
        raise Stopped
    triton.poll()
    if care is not None:
        care.poll()
    if door is not None:
        door.poll()


def _wait_for(gateway: GatewayProcess, triton: TritonProcess, asked: StopSignals, care: GatewayCare) -> str | None:
    """Wait until every route is ready. Returns what is missing when that does not happen in time."""
    deadline = time.monotonic() + READY_SECONDS
    while ((unready := gateway.why_not_ready()) or not care.up) and time.monotonic() < deadline:
        # A model that failed to load does not come by waiting.
        if triton.failed and care.up:
            break
        _tick(triton, asked, care)
    return unready


def _stop(gateway: GatewayProcess, triton: TritonProcess, asked: StopSignals) -> None:
    """Stop the gateway first, so that requests in flight still get their answer, then Triton."""
    signals, began, told = asked.count, time.monotonic(), False
    gateway.terminate()
    while gateway.running() and time.monotonic() - began < DRAIN_SECONDS and asked.count == signals:
        time.sleep(TICK)
        if triton.was_ready:
            triton.poll()  # one that dies now is started again, for the last requests
        if not told and time.monotonic() - began > PATIENCE_SECONDS:
            print("waiting for requests in flight; Ctrl-C again ends them", flush=True)
            told = True
    gateway.end()
    triton.stop()


def _export_if_needed(models: Path, asked: StopSignals) -> None:
    if models.is_dir() and any(route.task == "ocr" for route in load_routes(models).routes):
        return
    print(f"making the OCR models in {models}", flush=True)
    with subprocess.Popen([*COMMAND, "export", "ocr", "--models", str(models)], env=environment()) as export:
        while export.poll() is None:
            if asked.wait(TICK):
                export.terminate()
                raise Stopped
    if export.returncode != 0:
        raise StartError(f"immich-triton export ocr ended with exit code {export.returncode}; see above")


def _refuse_what_is_ours(more: list[str]) -> None:
    for name, remedy in OURS.items():
        if given(more, name, None) is not None:
            raise StartError(f"{name} cannot be set in --options: {remedy}")


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):  # no number
        if 0 <= (minutes := float(text)) < math.inf:
            return minutes
    raise argparse.ArgumentTypeError(f"minutes, 0 or more, not {text}")


def _upstream(text: str) -> str:
    parts = urlsplit(text)
    with contextlib.suppress(ValueError):  # the port is no number
        if parts.scheme in ("http", "https") and parts.hostname and not parts.path.strip("/") and parts.port != 0:
            return f"{parts.scheme}://{parts.netloc}"
    raise StartError(f"--upstream must look like http://127.0.0.1:3003, not {text!r}")


def _summary(gateway: GatewaySettings, triton: TritonProcess, routes: RouteTable, seconds: float) -> None:
    reach = "" if _connects(gateway.upstream) else " (nothing answers there now: such requests get 502)"
    host = gateway.host if ":" not in gateway.host else f"[{gateway.host}]"
    lines = [
        f"immich-triton is up after {seconds:.1f} s; Ctrl-C stops it",
        f"  Immich asks      http://{host}:{gateway.port}",
        f"  metrics          http://{gateway.metrics}/metrics, health at /healthz and /readyz"
        if gateway.metrics
        else "  metrics          none",
        f"  Triton           {triton.settings.url}, metrics http://127.0.0.1:{triton.settings.metrics_port}/metrics",
        *(
            f"  routed           {line}"
            for line in routes.describe() or ["nothing: immich-triton export ocr (clip, faces) makes models"]
        ),
        f"  passes through   everything else, to {gateway.upstream}{reach}",
    ]
    print("\n".join(lines), flush=True)


def _connects(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=1):
            return True
    except OSError:
        return False


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    text = parser.add_argument
    text(
        "--upstream",
        default="http://127.0.0.1:3003",
        metavar="URL",
        help="the stock Immich machine learning, which gets what is not routed (default: %(default)s)",
    )
    text(
        "--host",
        default="127.0.0.1",
        help="address the gateway listens on; 0.0.0.0 to be reached from containers and other machines, which need no "
        "password then: mind the firewall (default: %(default)s)",
    )
    text("--port", type=int, default=3004, metavar="N", help="port the gateway listens on (default: %(default)s)")
    text(
        "--metrics-port",
        type=lambda text: int(text) if text else None,
        default=9464,
        metavar="N",
        help="port of the gateway's metrics, on loopback; '' for none (default: %(default)s)",
    )
    text("--triton-http-port", type=int, default=8000, metavar="N", help="Triton's port (default: %(default)s)")
    text("--triton-metrics-port", type=int, default=8002, metavar="N", help="its metrics' port (default: %(default)s)")
    text("--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)")
    text(
        "--idle-unload",
        type=_minutes,
        default=10.0,
        metavar="MINUTES",
        help="unload the models of a route, its pipelines too, when nobody asked for it in so many minutes; the next "
        "request waits until they are loaded again; 0: never (default: 10)",
    )
    text("--options", default="", metavar="TEXT", help="more mitmproxy options, e.g. '--set immich_deadline=30'")
    text("--inspect", action="store_true", help="run mitmweb instead of mitmdump, to watch requests in a browser")
    text("--inspect-port", type=int, default=8081, metavar="N", help="port of mitmweb's pages (default: %(default)s)")
    text("--run-dir", type=Path, metavar="DIR", help="folder for logs and pid files (default: .run/<port>)")
    text(
        "--no-export",
        dest="export",
        action="store_false",
        help="do not make the OCR models when the model repository has none; OCR then passes through",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
