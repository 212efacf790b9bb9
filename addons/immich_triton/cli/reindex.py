#!/usr/bin/env python3
"""Have Immich ask about all its photos again, after the model behind a task changed, or about those that are missing.

Embeddings of two models cannot be compared, not even when they have the same size: a query of the new model against
photos of the old one gives confident nonsense. So each photo must be embedded again. Text and faces of the old model
are not wrong, but stay as they are until then. Without --yes this only shows what would happen; with it, Immich queues
the task for all photos: of CLIP it empties the index first, of OCR it deletes the text first, faces keep their person.

    IMMICH_API_KEY=... immich-triton reindex --immich http://immich:2283 --gateway http://gateway:3004
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import requests
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from immich_triton.cli.queue_watch import Run, duration, tell, watch
from immich_triton.cli.tally import Tally
from immich_triton.core import timing
from immich_triton.core.direct_requests import on_loopback
from immich_triton.immich import api_key
from immich_triton.immich.api import KEPT, Immich, ImmichError, MlSettings
from immich_triton.immich.clip_names import dimension_of
from immich_triton.immich.forced_runs import NOT_FOUND_BY_MISSING
from immich_triton.immich.ml_client import NOT_FOUND, Answer, cause, entries_for, predict, shown

TASKS: Final = {"clip": "clip", "ocr": "ocr", "faces": "facial-recognition"}
"""Immich's name of each task, by its name on the command line."""

_CONCURRENCY: Final = {"clip": 2, "ocr": 1, "facial-recognition": 2}
"""Immich's defaults."""
_SAMPLES: Final = 12
_LINES: Final = 8
"""Lines of text in the picture that is measured with."""

_ANSWERED_BY: Final[dict[timing.Who, str]] = {
    "triton": "Triton",
    "fallback": "the stock service, because Triton is away (immich_fallback_tasks)",
    "stranger": "the stock service (no route of ours has this name)",
}

_SPOILT: Final = {
    "clip": "photos get vectors of another model that mix with ours unnoticed",
    "facial-recognition": "photos get faces of another model, which match no person unless the weights are the same",
}
"""What another machine-learning address does to a task."""


@dataclass(frozen=True)
class Measured:
    """What the gateway did with a few requests: who answered them, and how many images a second."""

    who: timing.Who
    rate: float


class RefusedError(Exception):
    """Re-indexing now would harm; the text says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 1 when something is in the way, or photos are known to have failed."""
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
        return _run(Immich(options.immich, key, trust_env=not on_loopback(options.immich)), options)
    except (ImmichError, RefusedError) as error:
        print(f"reindex: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nreindex: no longer watching; Immich goes on by itself", file=sys.stderr)
        return 130


def _run(immich: Immich, options: argparse.Namespace) -> int:
    task, settings = TASKS[options.task], asyncio.run(immich.ml_settings())
    run = Run(task, everything=not options.missing, photos=asyncio.run(immich.assets()))
    _show(immich, settings, run)
    _check(settings, options.gateway, run)
    tally = Tally(options.metrics, task)
    measured = _measure(options.reach or options.gateway, options.task, settings.names[task])
    print(f"  answered by                  {_ANSWERED_BY[measured.who]}")
    _show_cost(run, measured)
    queue = asyncio.run(immich.queue(task))
    if queue.left:
        print(f"{run.title} is running: {queue.left} to do.")
    if measured.who == "fallback":
        raise RefusedError("Triton is away: photos would get the stock service's answers; see immich-triton doctor")
    if not options.yes:
        print("Nothing was changed. --yes starts it.")
        return 0
    if queue.paused:
        raise RefusedError(f"the {run.title} queue is paused; resume it in Immich (Administration, Job Queues)")
    if measured.who == "stranger":
        tally.give_up("the gateway does not count by task what passes through")
    elif (mine := tally.counts()) and mine.answered <= _SAMPLES:  # what was measured just now is not in it
        tally.give_up(f"the metrics at {options.metrics} are those of another gateway (see --metrics)")
    tally.begin()
    asyncio.run(immich.start(task, everything=run.everything))
    seen = watch(immich, run, tally, options.interval)
    return tell(run, seen, tally.why, Console(highlight=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = parser.add_argument
    text("--immich", required=True, metavar="URL", help="address of the Immich server")
    api_key.add_option(parser)
    text("--gateway", required=True, metavar="URL", help="address of the gateway, as it stands in Immich's settings")
    text("--reach", metavar="URL", help="address of the gateway from here, where that is another one")
    text("--task", choices=sorted(TASKS), default="clip", help="what to do again (default: %(default)s)")
    text(
        "--metrics",
        default="http://127.0.0.1:9464",
        metavar="URL",
        help="the gateway's metrics (immich_metrics_listen), by which photos are counted (default: %(default)s)",
    )
    text("--missing", action="store_true", help="only what has no result yet; what there is stays")
    text("--yes", action="store_true", help="do it")
    text("--interval", type=float, default=2.0, metavar="S", help="seconds between looks at the queue")
    return parser


def _show(immich: Immich, settings: MlSettings, run: Run) -> None:
    name = settings.names.get(run.task, "none: this Immich does not know the task")
    size = f" ({dimension_of(name) or '?'} numbers)" if run.task == "clip" else ""
    print(f"Immich {asyncio.run(immich.version())}, {run.title} {'on' if run.task in settings.on else 'OFF'}")
    print(f"  model name in the settings   {name}{size}")
    print(f"  machine-learning addresses   {', '.join(map(shown, settings.urls))}")


def _show_cost(run: Run, measured: Measured) -> None:
    if run.task == "clip":
        print(
            "Immich does not say which model made the vectors in its index. Those made before a change are of the old\n"
            "model's space and cannot be compared with new ones; embedding every photo again puts all into one space."
        )
    elif run.task in KEPT:
        print("Faces are found anew in each photo; those that were known keep their person, others are recognised.")
    elif run.everything:
        print("Immich deletes the text of all photos first: until its turn comes, none is found by its text.")
        print(f"And {NOT_FOUND_BY_MISSING[run.task]}.")
    sample = "" if run.task == "clip" else f", on a picture with {_LINES} lines of text and no face"
    print(
        f"About {duration(run.photos / measured.rate)} for all {run.photos} photos and videos "
        f"({measured.rate:.1f} images/s, measured just now with {_CONCURRENCY[run.task]} at a time{sample})."
    )


def _check(settings: MlSettings, gateway: str, run: Run) -> None:
    if run.task not in settings.on:
        raise RefusedError(f"{run.title} is off in Immich's settings: nothing would be done")
    if not settings.urls:
        raise RefusedError(f"Immich's settings list no machine-learning URL; add {shown(gateway)}")
    others = [url for url in settings.urls if url.rstrip("/") != gateway.rstrip("/")]
    if not others:
        return
    listed = ", ".join(map(shown, others))
    if shown(gateway) in map(shown, others):
        raise RefusedError(
            f"Immich's settings list {listed}, but not with the path that --gateway has: it is the gateway's token "
            "(immich_path_token), and requests with another one get 404. Give --gateway as it stands in the settings."
        )
    if run.task in _SPOILT:
        raise RefusedError(
            f"Immich's settings also list {listed}. When the gateway answers 503 (Triton restarts, the queue is full), "
            f"Immich goes on to the next address, and {_SPOILT[run.task]}. Leave {shown(gateway)} as the only "
            "machine-learning URL, then run this again."
        )
    print(f"Immich's settings also list {listed}: it asks there whenever the gateway answers 503.")


def _measure(gateway: str, task: str, name: str) -> Measured:
    """Ask the gateway at Immich's default concurrency. It must answer: a failed photo is not retried."""
    image, immichs = _photo(), TASKS[task]

    def ask(_: int) -> timing.Who:
        answer = predict(gateway, entries_for(task, name), image=image)
        if answer.status != requests.codes.ok or immichs not in _keys(answer):
            more = f"; {NOT_FOUND}" if answer.status == requests.codes.not_found else ""
            raise RefusedError(
                f"the gateway answers {answer.status} for {name}, photos would be lost: {answer.body}{more}"
            )
        return timing.who_answered(answer.headers)

    try:
        ask(0)
        started = time.perf_counter()
        with ThreadPoolExecutor(_CONCURRENCY[immichs]) as pool:
            answered = set(pool.map(ask, range(_SAMPLES)))
        rate = _SAMPLES / (time.perf_counter() - started)
    except requests.RequestException as error:
        raise RefusedError(f"the gateway cannot be reached at {shown(gateway)}: {cause(error)}; see --reach") from error
    # One that fell back is enough: the others may have had their answer from Triton just before it went away.
    return Measured(next(who for who in ("fallback", "stranger", "triton") if who in answered), rate)


def _keys(answer: Answer) -> frozenset[str]:
    return frozenset(answer.body) if isinstance(answer.body, dict) else frozenset()


def _photo() -> bytes:
    """Return a JPEG of the size of Immich's previews, with some text: reading that is most of the work of OCR."""
    picture = Image.effect_noise((1440, 1080), 40).convert("RGB")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(48)
    for line in range(_LINES):
        draw.text((60, 60 + 120 * line), f"{line + 1}. The quick brown fox, {1234567 * (line + 1)}", "black", font)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
