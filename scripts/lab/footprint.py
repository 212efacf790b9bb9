#!/usr/bin/env python3
"""Measure what an installation takes under load: shared memory, memory, processes; for the limits of containers.

Starts an installation of its own (Triton and the gateway as `immich-triton run` does) on free ports, lets clients ask
for everything that is routed with pictures of one size, and prints the highest that was seen.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from immich_triton.core.paths import MODELS
from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml.routes import RouteTable, load_routes
from immich_triton.server import processes
from trials.installation import Installation, running
from trials.load import TEXTS, Kind, count, describe, load, picture

INTERVAL: Final = 0.5
NOBODY: Final = "http://127.0.0.1:9"
"""The stock ML: everything that is asked here is routed."""


@dataclass
class Peak:
    """The highest that was seen, in bytes. ``pss`` counts a page once however many processes map it."""

    shared: int = 0
    triton: int = 0
    gateway: int = 0
    processes: int = 0

    def look(self, site: Installation) -> None:
        """Take one sample."""
        port = site.triton_url.rpartition(":")[2]
        triton, gateway = processes.memory(site.triton_pid), processes.memory(site.gateway_pid)
        self.shared = max(self.shared, shared_memory(f"immich_triton_{port}_"))
        self.triton = max(self.triton, triton.pss)
        self.gateway = max(self.gateway, gateway.pss)
        self.processes = max(self.processes, triton.processes + gateway.processes)


def shared_memory(prefix: str) -> int:
    """Return what the files of a server in /dev/shm take there, in bytes: what a limit (shm_size) is about."""
    taken = 0
    for file in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - fixed by POSIX
        try:
            taken += 512 * file.stat().st_blocks
        except FileNotFoundError:  # given back meanwhile
            continue
    return taken


def cycle(table: RouteTable, size: tuple[int, int]) -> list[Kind]:
    """Return a request for each route, with an image of *size* or a text."""
    found = []
    for task, name in (("ocr", "ocr"), ("clip", "clip"), ("clip", "clip-text"), ("facial-recognition", "faces")):
        for model in [model for route in table.routes if route.task == task for model in route.names][:1]:
            image = None if name == "clip-text" else picture(1, size)
            text = TEXTS[0] if name == "clip-text" else None
            found.append(Kind(name, *encode(entries_for(name, model), image=image, text=text)))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Returns 1 when something was not answered."""
    options = _parse(arguments)
    models = options.models.resolve()
    table = load_routes(models)
    asked = cycle(table, options.size)
    if not asked:
        print(f"footprint: nothing is routed in {models}: make models with immich-triton export", file=sys.stderr)
        return 1
    peak, done = Peak(), threading.Event()
    settings = {"immich_allow_untrained": "true", "immich_query_deadline": 120, "flow_detail": 0}
    with (
        tempfile.TemporaryDirectory(prefix="immich-triton-footprint-") as name,
        running(models, Path(name), NOBODY, settings) as site,
    ):
        peak.look(site)
        idle = Peak(**vars(peak))
        with load(site.url, asked, options.clients) as clients:
            timer = threading.Timer(options.seconds, done.set)
            timer.start()
            while not done.wait(INTERVAL):
                peak.look(site)
        outcomes = clients.since()
    Console().print(_table([("at rest", idle), ("under load", peak)]))
    kinds = ", ".join(kind.name for kind in asked)
    print(
        f"{options.clients} clients, {kinds}, {options.size[0]} x {options.size[1]} pixels: {describe(count(outcomes))}"
    )
    return 0 if set(count(outcomes)) == {"200"} else 1


def _table(rows: Sequence[tuple[str, Peak]]) -> Table:
    table = Table("", "shared memory", "Triton", "gateway", "processes", title="highest, MiB")
    for name, peak in rows:
        table.add_row(
            name, *(str(size >> 20) for size in (peak.shared, peak.triton, peak.gateway)), str(peak.processes)
        )
    return table


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must look like 1440x1080, not {text!r}")
    return int(found[1]), int(found[2])


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help="the model repository")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="of load (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=_size,
        default=(1440, 1080),
        metavar="WxH",
        help="of the pictures (default: 1440x1080, a preview)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
