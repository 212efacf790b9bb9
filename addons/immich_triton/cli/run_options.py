"""The command line of ``immich-triton run``, and what the parts that it starts are to be."""

from __future__ import annotations

import argparse
import contextlib
import math
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import argon2  # mitmproxy's own dependency, for this very option

from immich_triton.cli import run_gpu, run_mt_photos
from immich_triton.cli.run_mt_photos import MtPhotosSettings
from immich_triton.core.model_states import NAME
from immich_triton.core.paths import MODELS, RUN
from immich_triton.server.gateway_process import GatewaySettings
from immich_triton.server.graphics_cards import Card
from immich_triton.server.preflight import StartError
from immich_triton.server.proxy_process import WebInterface, given
from immich_triton.server.site_process import SiteSettings
from immich_triton.server.triton_settings import TritonSettings

ALONE: Final = {
    "--options": "mitmdump -s addons/immich_ml.py --mode reverse:http://127.0.0.1:3003 -p 3004",
    "--mt-photos-options": f"mitmdump -s addons/mt_photos.py --mode reverse:{run_mt_photos.NOWHERE} -p 8060",
}
"""How each gateway runs without us, by the option that has more options for it."""

OURS: Final = {
    "immich_triton_url": "immich-triton run starts a Triton of its own. For one elsewhere run the gateway alone: "
    "{alone} --set immich_triton_url=…",
    "immich_supervisor": "that is immich-triton run itself; --idle-unload 0 keeps the models loaded",
    "immich_models": "choose the model repository with immich-triton run --models DIR",
}
"""mitmproxy options that follow from other settings, and what to do instead; *alone* is a command line of `ALONE`."""


@dataclass(frozen=True)
class Parts:
    """What to run. *site* and *mt_photos* are None when nobody asked for them.

    *pages* are mitmweb's, address and password by product; *idle_unload* are the minutes after which a route that
    nobody asks for is unloaded, 0 for never; *cards* are those to compute on, none without ``--gpu``.
    """

    triton: TritonSettings
    gateway: GatewaySettings
    mt_photos: MtPhotosSettings | None
    site: SiteSettings | None
    export: bool
    pages: dict[str, str]
    idle_unload: float
    cards: Sequence[Card]


def read(arguments: list[str] | None) -> Parts:
    """Take the command line apart. Raises `StartError` for what cannot be run."""
    options = parse(arguments)
    more = _more("--options", options.options)
    run_dir = (options.run_dir or RUN / str(options.port)).resolve()
    models = options.models.resolve()
    triton = TritonSettings(
        models=models,
        http_port=options.triton_http_port,
        metrics_port=options.triton_metrics_port,
        run_dir=run_dir / "triton",
        only_routed=True,
        gpu=options.gpu,
        metrics_host=options.metrics_host,
        port_remedy="choose others: immich-triton run --triton-http-port N --triton-metrics-port N",
    )
    pages: dict[str, str] = {}
    gateway = GatewaySettings(
        upstream=address("--upstream", options.upstream, "http://127.0.0.1:3003"),
        host=options.host,
        port=options.port,
        metrics_port=options.metrics_port,
        triton_url=triton.url,
        models=models,
        run_dir=run_dir,
        options=more,
        web=_mitmweb("gateway", options.inspect_port, pages) if options.inspect else None,
        metrics_host=options.metrics_host,
        supervisor=run_dir / NAME if options.idle_unload else None,
    )
    return Parts(
        triton,
        gateway,
        mt_photos=run_mt_photos.settings(options, gateway, _more("--mt-photos-options", options.mt_photos_options)),
        site=_site(options, run_dir, pages),
        export=options.export,
        pages=pages,
        idle_unload=options.idle_unload,
        cards=run_gpu.cards() if options.gpu else (),
    )


def _more(option: str, text: str) -> list[str]:
    """Return the mitmproxy options in *text*. Raises `StartError` for one that follows from other settings."""
    more = shlex.split(text)
    for name, remedy in OURS.items():
        if given(more, name, None) is not None:
            raise StartError(f"{name} cannot be set in {option}: {remedy.format(alone=ALONE[option])}")
    return more


def _site(options: argparse.Namespace, run_dir: Path, pages: dict[str, str]) -> SiteSettings | None:
    if options.web is None:
        if options.web_inspect or options.web_options:
            raise StartError(
                "what begins with --web- is about the site, which --web URL starts: --web http://immich-server:2283"
            )
        return None
    return SiteSettings(
        upstream=address("--web", options.web, "http://immich-server:2283"),
        host=options.web_host,
        port=options.web_port,
        metrics_port=options.web_metrics_port,
        run_dir=run_dir,
        options=shlex.split(options.web_options),
        web=_mitmweb("site", options.web_inspect_port, pages) if options.web_inspect else None,
        metrics_host=options.metrics_host,
    )


def _mitmweb(product: str, port: int, pages: dict[str, str]) -> WebInterface:
    password = secrets.token_urlsafe(12)
    pages[product] = f"http://127.0.0.1:{port}/  password {password}"
    return WebInterface(port, argon2.PasswordHasher().hash(password))


def address(option: str, text: str, example: str) -> str:
    """Return scheme, host and port of an upstream. Raises `StartError` for what is more, or less."""
    parts = urlsplit(text)
    with contextlib.suppress(ValueError):  # the port is no number
        if parts.scheme in ("http", "https") and parts.hostname and not parts.path.strip("/") and parts.port != 0:
            return f"{parts.scheme}://{parts.netloc}"
    raise StartError(f"{option} must look like {example}, not {text!r}")


def _port(text: str) -> int | None:
    return int(text) if text else None


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):  # no number
        if 0 <= (minutes := float(text)) < math.inf:
            return minutes
    raise argparse.ArgumentTypeError(f"minutes, 0 or more, not {text}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="""Run the gateway and the embedded Triton together, until Ctrl-C or SIGTERM; with --web the site in
front of the Immich server too.

Makes the default OCR models first when the model repository has none. Several instances can run beside each other, each
with its own ports.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
        type=_port,
        default=9464,
        metavar="N",
        help="port of the gateway's metrics; '' for none (default: %(default)s)",
    )
    text(
        "--metrics-host",
        default="127.0.0.1",
        metavar="HOST",
        help="address on which the metrics of the gateways, of Triton and of the site listen; 0.0.0.0 for a Prometheus "
        "elsewhere. They ask for no password: mind the firewall (default: %(default)s)",
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
    text(
        "--inspect",
        action="store_true",
        help="run mitmweb instead of mitmdump, to watch the gateway's requests in a browser",
    )
    text("--inspect-port", type=int, default=8081, metavar="N", help="port of mitmweb's pages (default: %(default)s)")
    text("--run-dir", type=Path, metavar="DIR", help="folder for logs and pid files (default: .run/<port>)")
    text(
        "--no-export",
        dest="export",
        action="store_false",
        help="do not make the OCR models when the model repository has none; OCR then passes through",
    )
    _about_the_site(parser)
    run_mt_photos.add_options(parser)
    run_gpu.add_option(parser)
    return parser.parse_args(arguments)


def _about_the_site(parser: argparse.ArgumentParser) -> None:
    text = parser.add_argument
    text(
        "--web",
        metavar="URL",
        help="also run the site (not mitmweb: that is --inspect), the proxy in front of the Immich server at URL, e.g. "
        "http://immich-server:2283; needs immich-triton setup --web",
    )
    text(
        "--web-host",
        default="127.0.0.1",
        metavar="HOST",
        help="address the site listens on; 0.0.0.0 for browsers and phones without another reverse proxy in front "
        "(default: %(default)s)",
    )
    text("--web-port", type=int, default=2284, metavar="N", help="port the site listens on (default: %(default)s)")
    text(
        "--web-metrics-port",
        type=_port,
        default=9465,
        metavar="N",
        help="port of the site's metrics; '' for none (default: %(default)s)",
    )
    text(
        "--web-options",
        default="",
        metavar="TEXT",
        help="more mitmproxy options for the site, e.g. '--set web_redis_url=redis://redis:6379/0'",
    )
    text(
        "--web-inspect",
        action="store_true",
        help="run the site in mitmweb too, to watch its requests in a browser: everybody's, with what logs them in",
    )
    text(
        "--web-inspect-port",
        type=int,
        default=8082,
        metavar="N",
        help="port of that mitmweb's pages (default: %(default)s)",
    )
