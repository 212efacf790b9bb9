#!/usr/bin/env python3
"""Have Immich recognise the text in chosen photos again, or embed them again, and say what came of each.

Give the address of immich_web (the proxy in front of the Immich server, with web_redis_url set), and an API key with
the permissions asset.read, asset.update, job.create and user.read (and album.read for an album).

    IMMICH_API_KEY=... immich-triton reprocess --immich http://photos:2284 --lost --dry-run
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from immich_triton.core.direct_requests import on_loopback
from immich_triton.immich import api_key
from immich_triton.immich.api import ImmichError
from immich_triton.immich.own_assets import OwnAssets
from immich_triton.web.at_once import for_each
from immich_triton.web.reprocessing.tasks import NOBODYS, REFRESH_CLIP, REFRESH_OCR, Task, photo_id

TASKS: Final = {"ocr": (REFRESH_OCR,), "clip": (REFRESH_CLIP,), "both": (REFRESH_OCR, REFRESH_CLIP)}
PORTION: Final = 50
"""Photos that are ordered at a time: enough to keep Immich busy, few enough to stop after."""

PAUSE: Final = 0.2
"""Seconds between two looks at a photo."""

TRIED: Final = 4
"""Lines by which a photo is looked for, spread over all of them."""
WORTH_LOOKING_FOR: Final = 4
"""Letters and digits of a line; of fewer Immich's search makes too little."""

SHOWN: Final = 20
"""Photos that are named of those that failed."""


class RefusedError(Exception):
    """There is nothing that can be done; the text says why and what to do."""


@dataclass
class Report:
    """What came of one task: the ids of photos by what is said of them."""

    task: Task
    photos: dict[str, list[str]] = field(default_factory=dict)
    stalled: bool = False

    def note(self, outcome: str, photo: str) -> None:
        """Count a photo."""
        self.photos.setdefault(outcome, []).append(photo)

    @property
    def good(self) -> bool:
        """Whether every photo is done."""
        return self.photos.keys() <= {DONE, UNVERIFIED}


DONE: Final = "done"
UNVERIFIED: Final = "done, as far as can be seen"
FAILED: Final = "failed"
REFUSED: Final = "not yours, locked or unknown"
FORGOTTEN: Final = "ordered, but nothing is known of it any more"
WAITING: Final = "still in Immich's queue"
NOT_ORDERED: Final = "not ordered"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 when not every photo is done."""
    parser = _parser()
    options = parser.parse_args(arguments)
    chosen = [bool(options.ids), options.album is not None, options.search is not None, options.lost, options.broken]
    if sum(chosen) != 1:
        parser.error("choose photos by their ids, or by one of --album, --search, --lost and --broken")
    if wrong := [one for one in options.ids if photo_id(one) is None]:
        parser.error(f"{wrong[0]!r} is no id of an asset")
    try:
        key = api_key.read(options.api_key)
    except ValueError as error:
        parser.error(str(error))
    if not key:
        parser.error("give an API key in IMMICH_API_KEY or with --api-key")
    try:
        return asyncio.run(_run(options, key))
    except (ImmichError, RefusedError) as error:
        print(f"reprocess: {error}", file=sys.stderr)
        return 1
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        print(f"reprocess: what {options.immich} answered is not what Immich says: {error!r}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nreprocess: no longer watching; what was ordered goes on by itself", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="ids of photos and videos, as in the address of their page"
    )
    parser.add_argument("--immich", required=True, metavar="URL", help="address of immich_web")
    api_key.add_option(parser)
    parser.add_argument("--task", choices=[*TASKS], default="ocr", help="what to do again (default: %(default)s)")
    parser.add_argument("--album", metavar="NAME", help="your photos in an album, given by its name or id")
    parser.add_argument("--search", metavar="QUERY", help="what a search finds first; ocr:WORDS looks for text")
    parser.add_argument(
        "--lost",
        "--empty-ocr",
        action="store_true",
        help="all whose OCR is empty: those that a forced run (All) lost, and those without text, which only a new run "
        "tells apart",
    )
    parser.add_argument(
        "--broken",
        action="store_true",
        help="all that have text which Immich's own search does not find, as after Refresh thumbnails and cropping",
    )
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="most photos of a search (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the ids")
    parser.add_argument(
        "--timeout",
        type=float,
        default=600,
        metavar="S",
        help="seconds without a photo getting done after which it is not waited any longer (default: %(default)s)",
    )
    return parser


async def _run(options: argparse.Namespace, key: str) -> int:
    console = Console(stderr=True, highlight=False)  # the ids of a dry run may go on to another program
    async with OwnAssets(options.immich, key, trust_env=not on_loopback(options.immich)) as immich:
        photos = await _chosen(immich, options, console)
        if options.dry_run:
            print("\n".join(photos))
            print(f"{len(photos)} photos and videos; nothing was changed", file=sys.stderr)
            return 0
        if not photos:
            print("There is nothing to do.")
            return 0
        await _check(immich)
        reports = []
        for task in TASKS[options.task]:
            with _progress(task.name, console) as progress:
                reports.append(await _process(immich, task, photos, progress, options.timeout))
    for report in reports:
        _show(report, lost=options.lost)
    return 0 if all(report.good for report in reports) else 1


async def _check(immich: OwnAssets) -> None:
    """Find out whether there is a proxy of ours at all; Immich alone knows nothing of this."""
    try:
        await immich.outcome(NOBODYS)
    except ImmichError as error:
        if error.status == 404:
            raise RefusedError("at this address is Immich itself; give that of immich_web in front of it") from None
        if error.status != 400:
            raise


async def _chosen(immich: OwnAssets, options: argparse.Namespace, console: Console) -> list[str]:
    if options.ids:
        return list(dict.fromkeys(one.lower() for one in options.ids))
    if options.lost:
        with _progress("looking for photos without text", console) as progress:
            return await _all_that(lambda photo: _has_no_text(immich, photo), immich, progress)
    if options.broken:
        with _progress("looking for text that is not found", console) as progress:
            return await _all_that(lambda photo: _is_broken(immich, photo), immich, progress)
    found = immich.of_album(options.album) if options.album is not None else immich.found(options.search, options.limit)
    return [photo async for photo in found]


async def _all_that(holds: Callable[[str], Awaitable[bool]], immich: OwnAssets, progress: Progress) -> list[str]:
    bar = progress.add_task("", total=None)
    photos = [photo async for photo in immich.all()]
    progress.update(bar, total=len(photos))

    async def look(photo: str) -> bool:
        found = await holds(photo)
        progress.advance(bar)
        return found

    found = await for_each(photos, look)
    return [photo for photo in photos if found[photo]]


async def _has_no_text(immich: OwnAssets, photo: str) -> bool:
    return not await immich.lines(photo)


async def _is_broken(immich: OwnAssets, photo: str) -> bool:
    """Look for a photo by some of its own lines, each of which finds it where all is well.

    Undoing a crop leaves in the search only what had been cropped away, so lines of all parts are tried.
    """
    lines = [line for line in await immich.lines(photo) if sum(map(str.isalnum, line)) >= WORTH_LOOKING_FOR]
    some = {lines[at * (len(lines) - 1) // (TRIED - 1)] for at in range(TRIED)} if lines else set()
    return not all([await immich.is_found_by(line, photo) for line in some])


async def _process(immich: OwnAssets, task: Task, photos: Sequence[str], progress: Progress, patience: float) -> Report:
    """Order portion by portion, each when the one before is done."""
    report, bar = Report(task), progress.add_task("", total=len(photos))
    for begin in range(0, len(photos), PORTION):
        portion = photos[begin : begin + PORTION]
        if report.stalled:
            for photo in portion:
                report.note(NOT_ORDERED, photo)
            continue
        refused = {photo async for photo in _order(immich, task, portion)}
        for photo in portion:
            outcome = REFUSED if photo in refused else await _outcome(immich, task, photo, report, patience)
            report.note(outcome, photo)
            progress.advance(bar)
    return report


async def _order(immich: OwnAssets, task: Task, photos: Sequence[str]) -> AsyncIterator[str]:
    """Order a task; yield the photos that were refused. One refuses all, so each half is tried until it is found."""
    try:
        await immich.start_for(photos, task.name)
    except ImmichError as error:
        if error.status != 400:
            raise
        if len(photos) == 1:
            yield photos[0]
            return
        for half in (photos[: len(photos) // 2], photos[len(photos) // 2 :]):
            async for photo in _order(immich, task, half):
                yield photo


async def _outcome(immich: OwnAssets, task: Task, photo: str, report: Report, patience: float) -> str:
    """Wait until a photo is done; the first that takes too long ends the waiting for all."""
    ends = time.monotonic() + (0 if report.stalled else patience)
    while True:
        found = (await immich.outcome(photo)).get(task.name)
        if found is None:
            return FORGOTTEN
        if found["state"] == "done":
            return DONE if found["verified"] else UNVERIFIED
        if found["state"] == "failed":
            return f"{FAILED}: {found['message']}"
        if time.monotonic() >= ends:
            report.stalled = True
            return WAITING
        await asyncio.sleep(PAUSE)


def _progress(title: str, console: Console) -> Progress:
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _show(report: Report, *, lost: bool) -> None:
    total = sum(map(len, report.photos.values()))
    print(f"{report.task.name}: {total} photos and videos")
    for outcome, photos in report.photos.items():
        print(f"  {len(photos):>6}  {outcome}")
    if lost and report.task is REFRESH_OCR:
        print(f"{len(report.photos.get(DONE, ()))} had been lost: they have text again.")
    if report.stalled:
        print("Immich did not get on: is the queue paused (Administration, Job Queues)? What was ordered stays in it.")
    for outcome, photos in report.photos.items():
        if outcome not in (DONE, UNVERIFIED, NOT_ORDERED):
            print(f"{outcome}:", *photos[:SHOWN], *(["…"] if len(photos) > SHOWN else []), sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
