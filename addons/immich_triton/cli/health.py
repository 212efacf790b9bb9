#!/usr/bin/env python3
"""Tell whether a running gateway is ready: 0 when every route can be answered, else 1 and the reason.

The container's health check, and one for any supervisor. It asks for /readyz where the running gateway serves it, and
the one for MT-Photos too where --mt-photos started that. /ping would not do: with a path token that is a 404. With
--url it asks that address instead, of a gateway or a site that was started without immich-triton run.
"""

from __future__ import annotations

import argparse
import sys
import urllib.error
from pathlib import Path

from immich_triton.cli import run_mt_photos
from immich_triton.core import loopback
from immich_triton.core.paths import RUN
from immich_triton.server.gateway_process import PID_FILE
from immich_triton.server.preflight import reachable
from immich_triton.server.proxy_process import given


class UnhealthyError(Exception):
    """The gateway is not ready, or cannot be asked; the text says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=RUN / "3004",
        metavar="DIR",
        help="the run's folder for logs and pid files (default: .run/<port>)",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help="the address to ask, whatever runs there; ready is 200. Of a gateway http://127.0.0.1:9464/readyz, of the "
        "site in front of the Immich server http://127.0.0.1:2284/api/server/ping (default: by the run's folder)",
    )
    parser.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS", help="how long it may take (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        for url in [options.url] if options.url else addresses(options.run_dir):
            print(get(url, options.timeout))
    except UnhealthyError as error:
        print(f"unhealthy: {error}", file=sys.stderr)
        return 1
    return 0


def addresses(run_dir: Path) -> list[str]:
    """Return the URLs of /readyz that tell whether the run is ready. Raises `UnhealthyError`."""
    found = [readiness(metrics_address(run_dir))]
    # A supervisor removes the file when it stops, and what a killed one left behind when it starts.
    if (mt_photos := run_dir / run_mt_photos.RUN_FOLDER).joinpath(PID_FILE).exists():
        found.append(readiness(metrics_address(mt_photos, "--mt-photos-metrics-port")))
    return found


def metrics_address(run_dir: Path, option: str = "--metrics-port") -> str:
    """Return ``HOST:PORT`` of the running gateway's metrics, from its command line. Raises `UnhealthyError`.

    *option* of ``immich-triton run`` gives it some.
    """
    try:
        pid = int((run_dir / PID_FILE).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (OSError, ValueError) as error:
        raise UnhealthyError(f"no gateway runs with the folder {run_dir}: {error}; is it still starting?") from error
    if not (address := given(command, "immich_metrics_listen", "")):
        raise UnhealthyError(
            f"the gateway serves no /readyz: give immich-triton run a {option}, or check by another way"
        )
    return address


def readiness(address: str) -> str:
    """Return the URL of /readyz at the metrics' *address*, as this machine reaches it."""
    host, _, port = address.rpartition(":")
    host = reachable(host.strip("[]"))
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/readyz"


def ask(address: str, timeout: float) -> str:
    """Return the answer of /readyz at the metrics' *address* when it is 200. Raises `UnhealthyError`."""
    return get(readiness(address), timeout)


def get(url: str, timeout: float) -> str:
    """Return what *url* answers when that is a 200. Raises `UnhealthyError`."""
    try:
        with loopback.OPENER.open(url, timeout=timeout) as answer:
            return str(answer.read(65_536).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        raise UnhealthyError(error.read(65_536).decode("utf-8", "replace")) from error
    except (OSError, ValueError) as error:
        raise UnhealthyError(f"{url} does not answer: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
