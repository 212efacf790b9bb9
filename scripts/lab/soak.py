#!/usr/bin/env python3
"""Run a mixed load for a long time and see that nothing grows.

The mix: 10 % OCR and faces on small images, 20 % CLIP images, 30 % text queries of which half repeat, 40 % requests
that pass through or are bad. Starts an installation of its own on free ports; ends with 1 when something grew or went
wrong.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from harness.program import eventually
from immich_triton.core.paths import MODELS
from immich_triton.immich.ml_client import encode, entries_for
from immich_triton.ml.routes import RouteTable, load_routes
from trials import wear
from trials.installation import Installation, running
from trials.load import TEXTS, Kind, Load, count, describe, kinds, picture
from trials.servers import StockMl, serving

MOST = 0.05
STEPS = {"shared": 8 << 20}
"""Bytes that are no growth: Triton's Python backend enlarges a region by a megabyte or two, once, when more requests
meet in a process than ever before. What leaks with every request takes more than that in thousands of them."""
EXPECTED = {"bad": {400}}
INTERVAL = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Returns 1 when something grew beyond 5 %, leaked, or was answered with an error."""
    options = _parse(arguments)
    console = Console()
    table = load_routes(options.models)
    stock = StockMl()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="immich-triton-soak-")))
        stock.url = stack.enter_context(serving(stock.handle, keep_alive=2.0))
        # A busy machine is no failure: time-outs are tried elsewhere.
        settings = {"immich_allow_untrained": "true", "flow_detail": 0, "immich_query_deadline": 120}
        site = stack.enter_context(running(options.models.resolve(), directory, stock.url, settings))
        fds = wear.sample(site).files
        load = Load(site.url, mix(table), options.clients)
        samples = watch(load, site, options, console)
        load.stop()
        eventually(lambda: wear.sample(site).files <= fds + 4, 90)
        eventually(lambda: not wear.tasks(site), 30)
        last, left = wear.sample(site), wear.tasks(site)
        errors = "Traceback" in site.log or "internal error" in site.log
    wrong = [one for one in load.outcomes if one.status not in EXPECTED.get(one.kind, {200})]
    report = Table("what", "after the warm-up", "at the end", "growth", "")
    failed = [_row(report, name, [getattr(one, name) for one in samples]) for name in ("gateway", "triton", "shared")]
    failed.append(_line(report, "gateway's open files", str(fds), str(last.files), last.files <= fds + 4))
    failed.append(_line(report, "gateway's tasks of requests", "", str(len(left)), not left))
    failed.append(_line(report, "errors in the log", "", "yes" if errors else "none", not errors))
    failed.append(_line(report, "wrong answers", "", describe(count(wrong)), not wrong))
    console.print(report)
    minutes = (load.outcomes[-1].ended - load.outcomes[0].began) / 60
    by_kind = describe(count(load.outcomes, lambda one: one.kind))
    console.print(f"{len(load.outcomes)} requests in {minutes:.1f} min: {by_kind}")
    return 1 if any(failed) else 0


def mix(table: RouteTable) -> Sequence[Kind]:
    """Return a hundred requests in the stated mix; what has no route becomes something else that is routed."""
    found = kinds(table)
    named = {route.task: route.names[0] for route in table.routes}
    texts = [_text(named["clip"], text) for text in _queries(30)] if "clip-text" in found else []
    images = [_image("clip", named["clip"], seed) for seed in range(20)] if "clip" in found else []
    ocr = [_image("ocr", named["ocr"], seed) for seed in range(5)] if "ocr" in found else []
    faces = [_image("faces", named["facial-recognition"], seed) for seed in range(5)] if "faces" in found else []
    others = [found["pass"], found.get("bad", found["pass"])] * 20
    columns = [column for column in (texts, images, ocr, faces, others) if column]
    # Evenly spread, whatever their number.
    order = sorted((index / len(column), place) for place, column in enumerate(columns) for index in range(len(column)))
    iterators = [iter(column) for column in columns]
    return [next(iterators[place]) for _, place in order]


def _queries(number: int) -> list[str]:
    """Return queries of which half repeat."""
    fresh = (f"{text} {index}" for index, text in enumerate(itertools.cycle(TEXTS)))
    return [TEXTS[0] if index % 2 else next(fresh) for index in range(number)]


def _text(model: str, text: str) -> Kind:
    return Kind("clip-text", *encode(entries_for("clip-text", model), text=text))


def _image(task: str, model: str, seed: int) -> Kind:
    return Kind(task, *encode(entries_for(task, model), image=picture(seed)))


def watch(load: Load, site: Installation, options: argparse.Namespace, console: Console) -> list[wear.Sample]:
    """Take samples until enough requests were answered or the time is over."""
    samples: list[wear.Sample] = []
    began = time.monotonic()
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("requests", total=options.requests)
        while len(load.outcomes) < options.requests and time.monotonic() - began < 60 * options.minutes:
            time.sleep(INTERVAL)
            samples.append(wear.sample(site))
            progress.update(bar, completed=len(load.outcomes))
    return samples


def _row(report: Table, name: str, values: list[int]) -> bool:
    before, after, grown = wear.growth(values)
    fine = grown < MOST or after - before <= STEPS.get(name, 0)
    megabytes = [f"{value / 1e6:.1f} MB" for value in (before, after)]
    title: Mapping[str, str] = {"gateway": "gateway's memory", "triton": "Triton's memory", "shared": "shared memory"}
    return _line(report, title[name], megabytes[0], megabytes[1], fine, f"{100 * grown:+.1f} %")


def _line(report: Table, what: str, before: str, after: str, fine: bool, grown: str = "") -> bool:
    report.add_row(what, before, after, grown, "[green]ok[/]" if fine else "[red]failed[/]")
    return not fine


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)")
    add("--requests", type=int, default=5000, metavar="N", help="stop after so many (default: %(default)s)")
    add("--minutes", type=float, default=60, metavar="M", help="or after so long (default: %(default)s)")
    add("--clients", type=int, default=4, metavar="N", help="concurrent clients (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
