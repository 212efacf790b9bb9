"""What ``immich-triton run --mt-photos`` runs beside the gateway: mt-photos-ai's API, in a process of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, override

from immich_triton.core.paths import PROJECT
from immich_triton.server import proxy_process
from immich_triton.server.gateway_process import PID_FILE, GatewayProcess, GatewaySettings
from immich_triton.server.preflight import Port, StartError
from immich_triton.server.proxy_care import ProxyCare

ADDON: Final = PROJECT / "addons/mt_photos.py"

RUN_FOLDER: Final = "mt_photos"
"""Where its process id lies, in the folder of the run."""

NOWHERE: Final = "http://127.0.0.1:9"
"""mitmproxy wants an address behind a reverse proxy. Nothing is ever sent there: the addon answers or refuses all."""


@dataclass(frozen=True, kw_only=True)
class MtPhotosSettings(GatewaySettings):
    """What to run; ``clip`` and ``key`` are mitmproxy options, empty where nobody gave them."""

    clip: str = ""
    key: str = ""

    @property
    @override
    def ports(self) -> list[Port]:
        """What it listens on, with the options of its own to choose others by."""
        remedies = "--mt-photos-port N", "--mt-photos-metrics-port N", ""  # it has no mitmweb
        return proxy_process.listening(self, self.metrics, "mt-photos-ai's API", remedies)

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
        default=9466,
        metavar="N",
        help="port of its metrics, at the address of --metrics-host; '' for none (default: %(default)s)",
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


def settings(
    options: argparse.Namespace, gateway: GatewaySettings, more: Sequence[str] = ()
) -> MtPhotosSettings | None:
    """Return what the command line asks for beside *gateway*, over the same Triton; None when it asks for nothing.

    *more* are mitmproxy options. Raises `StartError` for options without a process that they could be about.
    """
    if not options.mt_photos:
        if options.mt_photos_clip or options.mt_photos_key or more:
            raise StartError(
                "what begins with --mt-photos- is about the answers to MT-Photos, which --mt-photos starts: add it"
            )
        return None
    return MtPhotosSettings(
        upstream=NOWHERE,
        host=gateway.host,
        port=options.mt_photos_port,
        metrics_port=options.mt_photos_metrics_port,
        triton_url=gateway.triton_url,
        models=gateway.models,
        run_dir=gateway.run_dir / RUN_FOLDER,
        options=more,
        metrics_host=gateway.metrics_host,
        addon=ADDON,
        supervisor=gateway.supervisor,
        clip=options.mt_photos_clip,
        key=options.mt_photos_key,
    )


def forget(run_dir: Path) -> None:
    """Remove what a run with ``--mt-photos`` left in *run_dir* when it was killed: this one is to run without."""
    (run_dir / RUN_FOLDER / PID_FILE).unlink(missing_ok=True)


def care(gateway: GatewayProcess) -> ProxyCare:
    """Return who looks after it."""
    return ProxyCare(gateway, lambda text: print(f"mt-photos: {text}", flush=True), name="the gateway for MT-Photos")


def summary(settings: GatewaySettings) -> str:
    """Return the line that says where it listens."""
    host = settings.host if ":" not in settings.host else f"[{settings.host}]"
    metrics = f", metrics http://{settings.metrics}/metrics" if settings.metrics else ""
    return f"  MT-Photos asks   http://{host}:{settings.port}{metrics}"
