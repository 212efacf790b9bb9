#!/usr/bin/env python3
"""Two Tritons behind a HAProxy: kill one under load, and give one other weights. Ends with 1 when a photo was lost.

Runs deploy/haproxy/haproxy.cfg with two real Tritons over one model repository and a gateway in front of it, on free
ports of this machine. No gain of speed is to be expected here: both share its cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from immich_triton.core.paths import MODELS
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.ml.routes import RouteTable, load_routes
from trials.balanced import Site, check_haproxy, running, wait_for_answers
from trials.load import Kind, Verdict, count, describe, kinds, load, picture

ALIKE: Final = 0.9999
"""Cosine of two answers of the same weights to the same input; batches change the last digits."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Returns 1 when a trial failed."""
    options = _parse(arguments)
    console = Console()
    try:
        console.print(f"{check_haproxy()}", highlight=False, soft_wrap=True)
    except FileNotFoundError as error:
        print(f"failover: {error}", file=sys.stderr)
        return 1
    models = options.models.resolve()
    table = load_routes(models)
    if not table.routes:
        print(f"failover: nothing is routed in {models}: make models with immich-triton export", file=sys.stderr)
        return 1
    pipelines = sorted({pipeline.name for route in table.routes for pipeline in route.pipelines})
    settings = {"immich_max_at_triton": options.at_triton, "immich_allow_untrained": "true"}
    results: dict[str, Verdict] = {}
    with (
        tempfile.TemporaryDirectory(prefix="immich-triton-failover-") as name,
        running(Path(name), models, pipelines, settings) as site,
    ):
        cycle = [kind for kind in kinds(table).values() if kind.name not in ("pass", "bad")]
        results["both work"] = both(site, cycle, options)
        results["one is killed under load"] = killed(site, cycle, options)
        results["it comes back"] = back(site, cycle, models, options)
        if options.other:
            results["one has other CLIP weights"] = other_weights(site, table, options.other.resolve())
    console.print(_table(results))
    return 1 if any(verdict.failures for verdict in results.values()) else 0


def both(site: Site, cycle: Sequence[Kind], options: argparse.Namespace) -> Verdict:
    """Measure the load over both."""
    verdict = Verdict()
    before = {name: triton.answered() for name, triton in site.tritons.items()}
    with load(site.url, cycle, options.clients) as clients:
        began = time.monotonic()
        time.sleep(options.seconds)
        per_second = len(clients.since()) / (time.monotonic() - began)
    verdict.say(f"{per_second:.1f} requests/s ({describe(count(clients.since()))})")
    verdict.expect(set(count(clients.since())) == {"200"}, f"not only answers: {describe(count(clients.since()))}")
    for name, triton in site.tritons.items():
        more = triton.answered() - before[name]
        verdict.say(f"Triton {name}: {more} inferences, {triton.shared_memory() >> 20} MiB of shared memory")
        verdict.expect(more > 0, f"Triton {name} got nothing")
    return verdict


def killed(site: Site, cycle: Sequence[Kind], options: argparse.Namespace) -> Verdict:
    """Kill the first under load: nobody notices more than a wait."""
    verdict = Verdict()
    with load(site.url, cycle, options.clients) as clients:
        time.sleep(options.seconds / 2)
        at_work = len(clients.outcomes)
        site.tritons["one"].vanish()
        began = time.monotonic()
        site.balancer.wait_until_up("two")
        noticed = time.monotonic() - began
        time.sleep(options.seconds)
    outcomes = clients.since()
    after = clients.since(began)
    longest = max((one.seconds for one in outcomes), default=0.0)
    verdict.say(f"{describe(count(outcomes))}; {at_work} before the kill")
    verdict.say(f"{len(after) / (options.seconds + noticed):.1f} requests/s after it, longest {longest:.1f} s")
    verdict.expect(set(count(outcomes)) == {"200"}, f"a request failed: {describe(count(outcomes))}")
    verdict.expect(bool(after), "nothing was answered after the kill")
    return verdict


def back(site: Site, cycle: Sequence[Kind], models: Path, options: argparse.Namespace) -> Verdict:
    """Start it again under load: it gets its share once its models are loaded, and nothing before."""
    verdict = Verdict()
    first = site.tritons["one"]
    with load(site.url, cycle, options.clients) as clients:
        first.start(models)
        site.balancer.wait_until_up("one", "two")
        shared = wait_for_answers(first, 0)
    verdict.say(describe(count(clients.since())))
    verdict.expect(shared, "it gets no requests")
    verdict.expect(set(count(clients.since())) == {"200"}, f"a request failed: {describe(count(clients.since()))}")
    return verdict


def other_weights(site: Site, table: RouteTable, other: Path) -> Verdict:
    """Let the first serve *other*: what reaches it gets 503, and no vector is of other weights."""
    verdict = Verdict()
    names = [name for route in table.routes if route.task == "clip" for name in route.names]
    if not names:
        verdict.expect(False, "there is no route for CLIP to try this with")
        return verdict
    questions: dict[str, Callable[[], Any]] = {
        "picture": lambda: predict(site.url, entries_for("clip", names[0]), image=picture(3)),
        "query": lambda: predict(site.url, entries_for("clip-text", names[0]), text="海边的日落"),
    }
    right = {what: _vector(ask().body) for what, ask in questions.items()}
    site.tritons["one"].vanish()
    site.balancer.wait_until_up("two")
    # Its own copy: what belongs to a Triton is renewed at its start.
    copy = site.tritons["one"].folder / "other"
    shutil.copytree(other, copy)
    site.tritons["one"].start(copy)
    site.balancer.wait_until_up("one", "two")
    for what, ask in questions.items():
        answers = [ask() for _ in range(20)]
        verdict.say(f"{what}: {describe(count(answers, lambda answer: answer.status))}")
        vectors = [_vector(answer.body) for answer in answers if answer.status == 200]
        strange = [vector for vector in vectors if float(vector @ right[what]) < ALIKE]
        verdict.expect(not strange, f"{what}: {len(strange)} vectors of other weights")
        refused = [answer for answer in answers if answer.status == 503 and "other weights" in str(answer.body)]
        verdict.expect(len(vectors) + len(refused) == len(answers), f"{what}: neither a vector nor a clear 503")
        verdict.expect(bool(refused), f"{what}: nothing reached the Triton with other weights")
    return verdict


def _vector(body: Any) -> Any:
    """Return the vector of an answer, of length 1; Immich gets it as text."""
    vector = np.array(json.loads(body["clip"]) if isinstance(body["clip"], str) else body["clip"], np.float64)
    return vector / np.linalg.norm(vector)


def _table(results: dict[str, Verdict]) -> Table:
    table = Table(title="two Tritons behind HAProxy")
    for column in ("trial", "measured", "verdict"):
        table.add_column(column)
    for name, verdict in results.items():
        table.add_row(name, "\n".join(verdict.measured), "\n".join(verdict.failures) or "passed")
    return table


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help="the repository of both Tritons")
    parser.add_argument(
        "--other",
        type=Path,
        metavar="DIR",
        help="one with other CLIP weights under the same names (default: not tried)",
    )
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="at a time (default: %(default)s)")
    parser.add_argument(
        "--at-triton",
        type=int,
        default=16,
        metavar="N",
        help="immich_max_at_triton of the gateway (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="N", help="of load in each trial (default: %(default)s)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
