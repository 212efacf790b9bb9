#!/usr/bin/env python3
"""Build Immich's search index anew, after the CLIP model behind it changed.

Embeddings of two models cannot be compared, not even when they have the same size: a query of the new model against
photos of the old one gives confident nonsense. So each photo must be embedded again. Without --yes this only shows
what would happen; with it, Immich empties the index and queues Smart Search for all photos.

    IMMICH_API_KEY=... immich-triton reindex --immich http://immich:2283 --gateway http://gateway:3004
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import requests
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from immich_triton.core.direct_requests import on_loopback
from immich_triton.core.paths import MODELS
from immich_triton.immich import api_key
from immich_triton.immich.api import Immich, ImmichError, MlSettings, QueueState
from immich_triton.immich.clip_names import dimension_of
from immich_triton.immich.ml_client import entries_for, predict
from immich_triton.immich.model_names import clean_name
from immich_triton.ml.route_file import Route, RouteError
from immich_triton.ml.routes import load_routes

_TASK: Final = "clip"
_CONCURRENCY: Final = 2
"""Immich's default for Smart Search."""
_SAMPLES: Final = 12
_ATTEMPTS: Final = 10
"""Looks at the queue that may fail in a row before the watch is given up; Immich goes on either way."""
_STARTING: Final = 60.0
"""Seconds Immich may take to fill the queue before an empty one counts as finished."""


class RefusedError(Exception):
    """Re-indexing now would harm; the text says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        key = api_key.read(options.api_key)
    except ValueError as error:
        print(f"reindex: {error}", file=sys.stderr)
        return 2
    if not key:
        print("reindex: give the API key of an administrator in IMMICH_API_KEY or with --api-key", file=sys.stderr)
        return 2
    try:
        _run(Immich(options.immich, key, trust_env=not on_loopback(options.immich)), options)
    except (ImmichError, RefusedError, RouteError) as error:
        print(f"reindex: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nreindex: no longer watching; Immich goes on by itself", file=sys.stderr)
        return 130
    return 0


def _run(immich: Immich, options: argparse.Namespace) -> None:
    settings = asyncio.run(immich.ml_settings())
    _show(immich, settings, options.models)
    _check(settings, options.gateway)
    rate = _measure(options.reach or options.gateway, settings.clip_name)
    count, queue = asyncio.run(immich.assets()), _queue(immich)
    print(
        f"About {_duration(count / rate)} for all {count} photos and videos "
        f"({rate:.1f} images/s, measured just now with {_CONCURRENCY} at a time)."
    )
    if queue.left:
        print(f"Smart Search is running: {queue.left} to do.")
    if not options.yes:
        print("Nothing was changed. --yes starts it.")
        return
    if queue.paused:
        raise RefusedError("the Smart Search queue is paused; resume it in Immich (Administration, Job Queues)")
    asyncio.run(immich.start(_TASK, everything=not options.missing))
    _watch(immich, options.interval)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--immich", required=True, metavar="URL", help="address of the Immich server")
    api_key.add_option(parser)
    parser.add_argument(
        "--gateway", required=True, metavar="URL", help="address of the gateway, as it stands in Immich's settings"
    )
    parser.add_argument("--reach", metavar="URL", help="address of the gateway from here, where that is another one")
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help="model repository with the routes")
    parser.add_argument("--missing", action="store_true", help="only what has no embedding yet; the index stays")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds between looks at the queue")
    return parser


def _show(immich: Immich, settings: MlSettings, models: Path) -> None:
    name = settings.clip_name
    print(f"Immich {asyncio.run(immich.version())}, Smart Search {'on' if settings.enabled else 'OFF'}")
    print(f"  model name in the settings   {name} ({dimension_of(name) or '?'} numbers)")
    print(f"  machine-learning addresses   {', '.join(settings.urls)}")
    print(f"  answered by                  {_describe(load_routes(models).find('clip', clean_name(name)))}")
    print(
        "Immich does not say which model made the vectors in its index. Those made before a change are of the old\n"
        "model's space and cannot be compared with new ones; embedding every photo again puts all into one space."
    )


def _describe(route: Route | None) -> str:
    if route is None:
        return "the stock service (no route of ours has this name)"
    return f"{route.pipeline('visual').models[0]}, weights {route.weights_sha256[:12]}"


def _check(settings: MlSettings, gateway: str) -> None:
    if not settings.enabled:
        raise RefusedError("Smart Search is off in Immich's settings: nothing would be indexed")
    others = [url for url in settings.urls if url.rstrip("/") != gateway.rstrip("/")]
    if others:
        raise RefusedError(
            f"Immich's settings also list {', '.join(others)}. When the gateway answers 503 (Triton restarts, the "
            "queue is full), Immich goes on to the next address, and photos get vectors of another model that mix with "
            f"ours unnoticed. Leave {gateway} as the only machine-learning URL, then run this again."
        )
    if not settings.urls:
        raise RefusedError(f"Immich's settings list no machine-learning URL; add {gateway}")


def _measure(gateway: str, name: str) -> float:
    """Return images/s of the gateway at Immich's default concurrency. It must answer: a failed photo is not retried."""
    image = _photo()

    def ask(_: int) -> None:
        answer = predict(gateway, entries_for("clip", name), image=image)
        if answer.status != requests.codes.ok:
            raise RefusedError(f"the gateway answers {answer.status} for {name}, photos would be lost: {answer.body}")

    try:
        ask(0)
        started = time.perf_counter()
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            list(pool.map(ask, range(_SAMPLES)))
        return _SAMPLES / (time.perf_counter() - started)
    except requests.RequestException as error:
        raise RefusedError(f"the gateway cannot be reached at {gateway}: {error}; see --reach") from error


def _photo() -> bytes:
    """Return a JPEG of the size of Immich's previews."""
    file = io.BytesIO()
    Image.effect_noise((1440, 1080), 40).convert("RGB").save(file, "JPEG", quality=80)
    return file.getvalue()


def _watch(immich: Immich, interval: float) -> None:
    """Show the progress until the queue is empty."""
    columns = (
        TextColumn("Smart Search"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=None)
        total, started = 0, time.monotonic()
        while True:
            left = _left(immich, interval)
            # Immich fills the queue bit by bit, while the first jobs are done already.
            total = max(total, left, int(progress.tasks[0].completed) + left)
            if total > 1:
                progress.update(task, total=total, completed=total - left)
            if not left and (total or time.monotonic() - started > _STARTING):
                break
            time.sleep(interval)
    seconds = time.monotonic() - started
    # One job is the one that fills the queue.
    if total <= 1:
        print("The queue is empty: there was nothing to do, or it was done between two looks.")
        return
    print(
        f"The queue is empty after {_duration(seconds)}. Immich does not list photos whose job failed: run this once "
        "more with --missing --yes, until that finds nothing."
    )


def _queue(immich: Immich) -> QueueState:
    return asyncio.run(immich.queue(_TASK))


def _left(immich: Immich, interval: float) -> int:
    """Return how many jobs are left; one answer that does not come is no reason to end a watch of hours."""
    for attempt in range(_ATTEMPTS):
        try:
            return _queue(immich).left
        except ImmichError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(interval)
    raise AssertionError("unreachable")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
