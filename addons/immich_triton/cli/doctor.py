"""Look at an installation from end to end and say what is wrong and how to put it right.

Give --immich and an administrator's API key (permission adminConfig.read, before Immich 3.2 systemConfig.read; in the
environment variable IMMICH_API_KEY) to have Immich's own settings checked too. Nothing is changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console

from immich_triton.cli import diagnosis, gpu_diagnosis, mt_photos_diagnosis, owed, site_diagnosis
from immich_triton.cli.findings import Finding, note, show
from immich_triton.core.counting import count
from immich_triton.core.direct_requests import on_loopback
from immich_triton.core.paths import MODELS, RUN
from immich_triton.core.secrets import secret
from immich_triton.immich import api_key
from immich_triton.immich.api import Immich
from immich_triton.ml.routes import RouteTable
from immich_triton.ml.settings import default_state_dir


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__)
    text = command.add_argument
    text("--url", default="http://127.0.0.1:3004", help="the gateway (default: %(default)s)")
    text("--triton", default="http://127.0.0.1:8000", metavar="URL", help="Triton (default: %(default)s)")
    text(
        "--triton-key",
        default="",
        metavar="WHERE",
        help="where the key of a Triton that asks for one stands: file:PATH or env:NAME, as in immich_triton_key",
    )
    text("--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)")
    text(
        "--run-dir",
        type=Path,
        default=RUN / "3004",
        metavar="DIR",
        help="the run's folder for logs and pid files, where its supervisor says which models sleep "
        "(default: .run/<port>)",
    )
    text(
        "--state-dir",
        type=Path,
        default=default_state_dir(),
        metavar="DIR",
        help="the gateway's immich_state_dir (default: %(default)s)",
    )
    text("--immich", metavar="URL", help="the Immich server, e.g. http://127.0.0.1:2283")
    text("--site", metavar="URL", help="the site in front of the Immich server, e.g. http://127.0.0.1:2284")
    text(
        "--mt-photos",
        metavar="URL",
        help="what answers MT-Photos, e.g. http://127.0.0.1:8060 after immich-triton run --mt-photos",
    )
    text(
        "--mt-photos-key",
        default="",
        metavar="WHERE",
        help="where its key stands, file:PATH or env:NAME, as in mt_photos_key (default: mt-photos-ai's own, which "
        "everybody knows)",
    )
    api_key.add_option(command)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 1 when something is wrong."""
    options = parser().parse_args(arguments)
    try:
        immich_key = api_key.read(options.api_key)
        triton_key = secret("--triton-key", options.triton_key)
        mt_photos_key = secret("--mt-photos-key", options.mt_photos_key)
    except ValueError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 1
    console = Console(highlight=False)
    tables: list[RouteTable] = []
    seen: list[Finding] = show("Machine", diagnosis.machine(), console)
    seen += show("Graphics card", gpu_diagnosis.graphics(options.models), console)
    seen += show(f"Models in {options.models}", diagnosis.models(options.models, tables), console)
    table = tables[0] if tables else RouteTable()
    states = diagnosis.asleep(options.run_dir)
    seen += show("Triton", diagnosis.triton(options.triton.rstrip("/"), table, triton_key, states), console)
    gateway = chain(diagnosis.gateway(options.url.rstrip("/")), owed.findings(options.state_dir))
    seen += show("Gateway", gateway, console)
    if options.immich:
        server = Immich(options.immich, immich_key, trust_env=not on_loopback(options.immich))
        seen += show("Immich", diagnosis.immich(server, table, options.state_dir), console)
    else:
        seen += show("Immich", [note("not checked: give --immich URL and IMMICH_API_KEY")], console)
    if options.site:
        seen += show("Site", site_diagnosis.site(options.site.rstrip("/")), console)
    if options.mt_photos:
        asked = mt_photos_diagnosis.mt_photos(options.mt_photos.rstrip("/"), mt_photos_key)
        seen += show("MT-Photos", asked, console)
    errors = sum(finding.level == "error" for finding in seen)
    warnings = sum(finding.level == "warning" for finding in seen)
    counted = f"{count(errors, 'error')}, {count(warnings, 'warning')}"
    console.print(f"\n{counted}" if errors or warnings else "\nall is well")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
