"""Ask the gateway and a stock Immich ML about your own photos, and show where the answers differ.

Photos are sent as Immich sends them: as previews, upright, 1440 pixels on the shorter side. Nothing is stored but the
report, an HTML file that holds smaller copies of the photos that differ most, of 200 at most.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import track

from immich_triton.core import direct_requests
from immich_triton.immich.ml_client import NOT_FOUND, cause, shown
from immich_triton.inspect import comparisons, previews
from immich_triton.inspect.comparison_report import render

INTERRUPTED = 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("photos", nargs="+", type=Path, help="image files, or folders of them")
    command.add_argument("--stock", required=True, metavar="URL", help="a stock Immich ML, e.g. http://127.0.0.1:3003")
    command.add_argument(
        "--url", default="http://127.0.0.1:3004", help="the gateway in front of Triton (default: %(default)s)"
    )
    command.add_argument(
        "--task",
        action="append",
        choices=sorted(comparisons.KEYS),
        help="what to compare; may be given several times (default: ocr and faces)",
    )
    command.add_argument("--ocr-model", metavar="NAME", help="Immich's model name (default: Immich's own default)")
    command.add_argument(
        "--faces-model", metavar="NAME", help="Immich's model name for faces (default: Immich's own default)"
    )
    command.add_argument(
        "--clip-model", metavar="NAME", help="Immich's model name for CLIP (default: ViT-B-16__openai)"
    )
    command.add_argument(
        "--limit", type=int, default=100, help="at most so many photos, evenly spread; 0 for all (default: %(default)s)"
    )
    command.add_argument(
        "--report", type=Path, default=Path("comparison.html"), help="file to write (default: %(default)s)"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0 when every photo could be compared, 1 when some could not.

    Ctrl-C ends it with 130 and a report about the photos until then.
    """
    options = parser().parse_args(arguments)
    console = Console()
    try:
        found = previews.find(options.photos)
        files = previews.sample(found.files, options.limit)
        for name, url in (("the gateway", options.url), ("the stock Immich ML", options.stock)):
            reach(name, url)
    except OSError as error:  # requests' errors are OSErrors too
        print(f"compare: {error}", file=sys.stderr)
        return 1
    if found.others:
        print(f"compare: {previews.skipped(found.others)}; convert photos among them to JPEG", file=sys.stderr)
    if not files:
        print("compare: there are no photos", file=sys.stderr)
        return 1
    try:
        return run(options, files, console)
    except OSError as error:
        print(f"compare: cannot write the report: {error}; choose another file with --report", file=sys.stderr)
        return 1


def run(options: argparse.Namespace, files: Sequence[Path], console: Console) -> int:
    """Compare, print the summary, write the report; return the exit code. Raises OSError when it cannot be written."""
    # Tried before anything is asked: hours of comparing shall not end without a report.
    with options.report.open("ab"):
        pass
    tasks = options.task or ["ocr", "faces"]
    models = {"ocr": options.ocr_model, "faces": options.faces_model, "clip": options.clip_model}
    asked = comparisons.ask_both(files, tasks, options.url, options.stock, models)
    album, code = comparisons.Album(), 0
    try:
        for picture in track(asked, "comparing", total=len(files), console=console):
            album.add(picture)
    except KeyboardInterrupt:
        code = INTERRUPTED
        print(f"compare: stopped after {len(album.pictures)} of {len(files)} photos", file=sys.stderr)
    if not album.pictures:
        if not options.report.stat().st_size:
            options.report.unlink()
        return code
    summaries = [comparisons.summarise(task, album.pictures) for task in tasks]
    console.print(comparisons.table(summaries))
    for task in comparisons.not_routed(album.pictures):
        print(f"compare: {task} was not answered by Triton: it passes through to the stock ML", file=sys.stderr)
    count = f"{len(album.pictures)} photos" if not code else f"the first {len(album.pictures)} of {len(files)} photos"
    between = f"{shown(options.url)} against {shown(options.stock)}"
    heading = f"{count}, {between}, {time.strftime('%Y-%m-%d %H:%M')}"
    options.report.write_text(render(album, summaries, heading), encoding="utf-8")
    console.print(f"{options.report}: {options.report.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return code or int(any(outcome.error for picture in album.pictures for outcome in picture.outcomes))


def reach(name: str, url: str) -> None:
    """Raise OSError when nobody answers at *url*, or nobody who knows machine learning."""
    try:
        answer = direct_requests.get(f"{url.rstrip('/')}/ping", timeout=10)
    except requests.RequestException as error:
        raise OSError(f"{name} does not answer at {shown(url)}: {cause(error)}") from error
    if answer.status_code == requests.codes.not_found:
        raise OSError(f"{name} at {shown(url)} answers 404 to /ping; {NOT_FOUND}")


if __name__ == "__main__":
    sys.exit(main())
