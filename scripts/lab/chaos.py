#!/usr/bin/env python3
"""Break things under load and see what Immich would notice: nothing worse than a wait, or a clear 503.

Starts an installation of its own (Triton and the gateway as `make run` does, a stock ML that counts, Immich's job
queues) on free ports, runs the trials, prints a table, and ends with 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from immich_triton.export.repository import MODELS
from immich_triton.ml.routes import load_routes
from trials.faults import FATAL, TRIALS
from trials.installation import running
from trials.load import Verdict, kinds
from trials.repository import Repository
from trials.servers import JobQueues, StockMl, serving
from trials.world import World

UPSTREAM_TIMEOUT = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Returns 1 when a trial failed."""
    options = _parse(arguments)
    console = Console()
    results: dict[str, tuple[Verdict, float]] = {}
    for batch in batches([name for name in TRIALS if name in options.trials]):
        with tempfile.TemporaryDirectory(prefix="immich-triton-chaos-") as directory:
            results |= _trials(batch, options, Path(directory), console)
    console.print(table(results))
    return 1 if any(verdict.failures for verdict, _ in results.values()) else 0


def batches(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the trials that share an installation.

    One that ends it is the last one in it, one with a deadline of its own is alone in it.
    """
    batch: list[str] = []
    for name in names:
        if batch and TRIALS[name].deadline:
            yield batch
            batch = []
        batch.append(name)
        if name in FATAL or TRIALS[name].deadline:
            yield batch
            batch = []
    if batch:
        yield batch


def _trials(
    names: list[str], options: argparse.Namespace, directory: Path, console: Console
) -> dict[str, tuple[Verdict, float]]:
    deadline = TRIALS[names[0]].deadline or options.deadline
    stock, queues = StockMl(), JobQueues()
    results: dict[str, tuple[Verdict, float]] = {}
    with ExitStack() as stack:
        stock.url = stack.enter_context(serving(stock.handle, keep_alive=2.0))
        queues.url = stack.enter_context(serving(queues.handle))
        key = directory / "api-key"
        key.write_text("of-the-trial")
        settings = {
            "immich_deadline": deadline,
            "immich_upstream_timeout": UPSTREAM_TIMEOUT,
            "immich_allow_untrained": "true",
            "immich_api_url": queues.url,
            "immich_api_key": f"file:{key}",
        }
        repository = Repository(options.models.resolve(), directory / "models")
        site = stack.enter_context(running(repository.folder, directory, stock.url, settings))
        requests = kinds(load_routes(options.models))
        world = World(site, stock, queues, requests, repository, deadline, options.pace)
        for name in names:
            console.print(f"[bold]{name}[/]: {TRIALS[name].fault}")
            began = time.monotonic()
            verdict = TRIALS[name].run(world)
            results[name] = verdict, time.monotonic() - began
            for text in verdict.failures:
                console.print(f"  [red]{text}[/]")
        if any(verdict.failures for verdict, _ in results.values()):
            console.print(site.log[-4000:], markup=False)
    return results


def table(results: dict[str, tuple[Verdict, float]]) -> Table:
    """Return the results as a table."""
    table = Table(
        "trial", "fault", "expected", "measured", "s", "", title="faults under a load of 8 concurrent mixed requests"
    )
    for name, (verdict, seconds) in results.items():
        measured = "\n".join(verdict.measured + [f"[red]{text}[/]" for text in verdict.failures])
        mark = "[red]failed[/]" if verdict.failures else "[green]ok[/]"
        trial = TRIALS[name]
        table.add_row(name, trial.fault, trial.expected, measured, f"{seconds:.0f}", mark)
    return table


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("trials", nargs="*", metavar="TRIAL", help=f"which ones (default: all): {', '.join(TRIALS)}")
    add("--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)")
    add("--deadline", type=int, default=30, metavar="S", help="immich_deadline meanwhile (default: %(default)s)")
    add("--pace", type=float, default=1.0, metavar="X", help="stretch the faults' times (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.trials) - set(TRIALS):
        parser.error(f"no such trial: {', '.join(sorted(unknown))}")
    options.trials = options.trials or list(TRIALS)
    return options


if __name__ == "__main__":
    sys.exit(main())
