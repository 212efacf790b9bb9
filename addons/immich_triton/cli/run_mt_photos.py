"""What ``immich-triton run --mt-photos`` runs beside the gateway: mt-photos-ai's API, in a process of its own."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final, override

from immich_triton.core.paths import PROJECT
from immich_triton.server.gateway_care import GatewayCare
from immich_triton.server.gateway_process import GatewayProcess, GatewaySettings
from immich_triton.server.preflight import Port

ADDON: Final = PROJECT / "addons/mt_photos.py"

NOWHERE: Final = "http://127.0.0.1:9"
"""mitmproxy wants an address behind a reverse proxy. Nothing is ever sent there: the addon answers or refuses all."""


@dataclass(frozen=True)
class MtPhotosSettings(GatewaySettings):
    """What to run; ``clip`` and ``key`` are mitmproxy options, empty where nobody gave them."""

    clip: str = ""
    key: str = ""

    @property
    @override
    def ports(self) -> list[Port]:
        """What it listens on, with the options of its own to choose others by."""
        names = [("mt-photos-ai's API", "--mt-photos-port"), ("its metrics", "--mt-photos-metrics-port")]
        return [
            Port(port.number, what, f"choose another one: immich-triton run {option} N", port.host)
            for port, (what, option) in zip(super().ports, names, strict=False)
        ]

    @property
    @override
    def own_options(self) -> dict[str, str]:
        """What follows from these settings, as mitmproxy options."""
        more = {"mt_photos_clip": self.clip, "mt_photos_key": self.key}
        return {**super().own_options, **{name: value for name, value in more.items() if value}}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to those of ``immich-triton run``."""
    option = parser.add_argument
    option("--mt-photos", action="store_true", help="answer MT-Photos too, as mt-photos-ai does, over the same Triton")
    option(
        "--mt-photos-port",
        type=int,
        default=8060,
        metavar="N",
        help="port that MT-Photos asks; the address is that of --host (default: %(default)s)",
    )
    option(
        "--mt-photos-metrics-port",
        type=lambda text: int(text) if text else None,
        default=9465,
        metavar="N",
        help="port of its metrics, on loopback; '' for none (default: %(default)s)",
    )
    option(
        "--mt-photos-clip",
        default="",
        metavar="ENCODER",
        help="the CLIP encoder that answers MT-Photos; required when several are routed (mt_photos_clip)",
    )
    option(
        "--mt-photos-key",
        default="",
        metavar="PLACE",
        help="where its key stands, file:PATH or env:NAME (mt_photos_key; default: mt-photos-ai's own, which "
        "everybody knows)",
    )
    option(
        "--mt-photos-options",
        default="",
        metavar="TEXT",
        help="more mitmproxy options for it, e.g. '--set mt_photos_min_face_score=0.7'",
    )


def process(options: argparse.Namespace, triton_url: str, models: Path, run_dir: Path) -> GatewayProcess | None:
    """Return the process that the command line asks for, not started; None when it asks for none."""
    if not options.mt_photos:
        return None
    return GatewayProcess(
        MtPhotosSettings(
            upstream=NOWHERE,
            host=options.host,
            port=options.mt_photos_port,
            metrics_port=options.mt_photos_metrics_port,
            triton_url=triton_url,
            models=models,
            run_dir=run_dir / "mt_photos",
            options=shlex.split(options.mt_photos_options),
            addon=ADDON,
            clip=options.mt_photos_clip,
            key=options.mt_photos_key,
        )
    )


def care(gateway: GatewayProcess) -> GatewayCare:
    """Return who looks after it."""
    return GatewayCare(gateway, lambda text: print(f"mt-photos: {text}", flush=True))


def summary(settings: GatewaySettings) -> str:
    """Return the line that says where it listens."""
    host = settings.host if ":" not in settings.host else f"[{settings.host}]"
    metrics = f", metrics http://{settings.metrics}/metrics" if settings.metrics else ""
    return f"  MT-Photos asks   http://{host}:{settings.port}{metrics}"
