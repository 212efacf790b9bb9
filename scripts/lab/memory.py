"""Measure what every process of an installation holds in memory: fresh, after use, after large images, and asleep.

    .venv/bin/python scripts/lab/memory.py                       PSS of each process, for the routes of triton_models
    .venv/bin/python scripts/lab/memory.py --idle --drop-cache   asleep too, and how long the first request takes then

Starts a gateway and a Triton of its own. PSS counts a page that several processes share once, divided among them.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import environment, holdings
from benchmarks.samples import IMAGES, from_files, queries
from benchmarks.service import Gateway, own
from benchmarks.targets import BenchError
from harness.program import eventually
from immich_triton.core.model_states import NAME, ask
from immich_triton.core.paths import MODELS, PROJECT, RUN
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.routes import RouteTable, load_routes

LOG = PROJECT / ".run/memory.log"
MEGABYTE = 1 << 20
IDLE_MINUTES = 1.0
SETTLE_SECONDS = 4.0
"""What is freed is given back a moment after the last request."""
SHORT = {"ocr": "ocr", "facial-recognition": "faces", "clip": "clip"}
"""What `entries_for` calls Immich's tasks."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--models", type=Path, default=MODELS, help="the model repository (default: triton_models)")
    add("--options", default="", metavar="TEXT", help="mitmproxy options, as of immich-triton run")
    add("--requests", type=int, default=60, metavar="N", help="of each task, for the memory after use (default: 60)")
    add("--clients", type=int, default=4, metavar="N", help="requests at a time (default: %(default)s)")
    add("--large", type=int, default=0, metavar="N", help="then so many images of 24 megapixels (default: none)")
    add("--idle", action="store_true", help="then wait until all sleep, and time the first request of each kind")
    add("--drop-cache", action="store_true", help="once more, with the files of models and libraries not in memory")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when all was measured, 1 on an error."""
    options = parser().parse_args(arguments)
    show = Console()
    warning = environment.warning()
    try:
        table = load_routes(options.models)
        with own(
            options.models,
            options.options,
            LOG,
            ["--idle-unload", IDLE_MINUTES if options.idle else 0],
        ) as gateway:
            facts = environment.describe(gateway)
            for name, value in facts.items():
                show.print(f"{name}: {value}", highlight=False)
            if warning:
                show.print(f"warning: {warning}", style="yellow")
            phases, first = _measure(gateway, table, options)
    except (BenchError, OSError, ValueError) as error:
        print(f"memory: {error}", file=sys.stderr)
        return 1
    _print(phases, first, show)
    if options.json:
        figures = {name: holdings.as_figures(held) for name, held in phases.items()}
        whole = {"environment": facts, "bytes": figures, "first request": first}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0


Phases = dict[str, list[holdings.Holding]]
First = dict[str, dict[str, float]]
"""How long the first request of each kind took, and the CPU time of all processes meanwhile."""


def _measure(gateway: Gateway, table: RouteTable, options: argparse.Namespace) -> tuple[Phases, First]:
    phases: Phases = {"fresh": holdings.of(gateway)}
    kinds = _kinds(table)
    _send(gateway, kinds, options.requests, options.clients)
    phases["used"] = holdings.of(gateway)
    time.sleep(SETTLE_SECONDS)
    phases["at rest"] = holdings.of(gateway)
    if options.large:
        for _ in range(options.large):
            for name, (entries, is_text) in kinds.items():
                if not is_text:
                    _ask(gateway, name, entries, image=_large())
        phases["large"] = holdings.of(gateway)
        time.sleep(SETTLE_SECONDS)
        phases["at rest, after large"] = holdings.of(gateway)
    first: First = {}
    for cold in (False, True)[: 1 + options.drop_cache] if options.idle else ():
        for name, (entries, is_text) in kinds.items():
            _sleep(gateway, or_decoders="asleep" not in phases)
            phases.setdefault("asleep", holdings.of(gateway))
            if cold:
                holdings.drop_from_cache(options.models)
            what = _text(0) if is_text else {"image": _photos()[0]}
            key, before = f"{name}, {'files not in memory' if cold else 'warm'}", holdings.cpu_seconds(gateway)
            seconds = _ask(gateway, name, entries, **what)
            first[key] = {"seconds": seconds, "cpu_seconds": holdings.cpu_seconds(gateway) - before}
    return phases, first


def _kinds(table: RouteTable) -> dict[str, tuple[dict[str, Any], bool]]:
    """Return what can be asked of the routes: ``entries``, and whether it is a text that is asked about."""
    kinds: dict[str, tuple[dict[str, Any], bool]] = {}
    for route in table.routes:
        name = route.names[0]
        kinds[f"{route.task} {name}"] = entries_for(SHORT[route.task], name), False
        if route.task == "clip":
            kinds[f"query {name}"] = entries_for("clip-text", name), True
    if not kinds:
        raise BenchError("nothing is routed; make models first, e.g. immich-triton export ocr")
    return kinds


def _send(gateway: Gateway, kinds: dict[str, tuple[dict[str, Any], bool]], count: int, clients: int) -> None:
    photos = _photos()
    with ThreadPoolExecutor(clients) as pool:
        for name, (entries, is_text) in kinds.items():
            work = [
                pool.submit(
                    _ask, gateway, name, entries, **(_text(n) if is_text else {"image": photos[n % len(photos)]})
                )
                for n in range(count)
            ]
            for one in work:
                one.result()


def _ask(gateway: Gateway, name: str, entries: dict[str, Any], **what: Any) -> float:
    answer = predict(gateway.url, entries, **what)
    if answer.status != 200:
        raise BenchError(f"{name} got {answer.status}: {answer.body}")
    return answer.seconds


def _sleep(gateway: Gateway, *, or_decoders: bool) -> None:
    path = RUN / str(gateway.port) / NAME

    def asleep() -> bool:
        left = holdings.has_models(gateway, or_decoders=or_decoders)
        return set(ask(path).models.values()) == {"asleep"} and not left

    if not eventually(asleep, 240):
        raise BenchError(f"not all fell asleep: {ask(path).models}; see {LOG}")


def _photos() -> list[bytes]:
    return [sample.image for sample in from_files([IMAGES]) if sample.image]


def _text(number: int) -> dict[str, str]:
    return {"text": queries(number + 1, seed="memory")[-1].text or ""}


def _large() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (60, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((6000, 4000)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _print(phases: Phases, first: First, show: Console) -> None:
    names = list(dict.fromkeys(one.name for held in phases.values() for one in held))
    table = Table("PSS, MiB", *phases)
    for name in names:
        row = [sum(one.pss for one in held if one.name == name) for held in phases.values()]
        count = max(sum(one.name == name for one in held) for held in phases.values())
        table.add_row(
            f"{name} x{count}" if count > 1 else name, *(f"{size / MEGABYTE:.0f}" if size else "" for size in row)
        )
    table.add_section()
    for what in ("pss", "rss"):
        sums = [sum(getattr(one, what) for one in held) for held in phases.values()]
        table.add_row(f"all, {what.upper()}", *(f"{size / MEGABYTE:.0f}" for size in sums))
    show.print(table)
    for name, one in first.items():
        # The second tells on a busy machine what the first would be on a quiet one.
        text = f"first request after sleep: {name}: {one['seconds']:.1f} s, CPU time of all {one['cpu_seconds']:.1f} s"
        show.print(text, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
