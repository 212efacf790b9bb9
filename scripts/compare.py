"""Ask the gateway and a stock Immich ML about your own photos, and show where the answers differ.

Photos are sent as Immich sends them: as previews, upright, 1440 pixels on the shorter side. Nothing is stored but the
report, an HTML file that holds smaller copies of the photos.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import track
from toolbox import comparisons, previews
from toolbox.comparison_report import render


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
    command.add_argument("--faces-model", metavar="NAME", help="Immich's model name for faces")
    command.add_argument("--clip-model", metavar="NAME", help="Immich's model name for CLIP")
    command.add_argument(
        "--limit", type=int, default=100, help="at most so many photos, evenly spread; 0 for all (default: %(default)s)"
    )
    command.add_argument(
        "--report", type=Path, default=Path("comparison.html"), help="file to write (default: %(default)s)"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 when every photo could be compared, 1 when some could not."""
    options = parser().parse_args(arguments)
    console = Console()
    try:
        files = previews.sample(previews.find(options.photos), options.limit)
        for name, url in (("the gateway", options.url), ("the stock Immich ML", options.stock)):
            reach(name, url)
    except OSError as error:  # requests' errors are OSErrors too
        print(f"compare: {error}", file=sys.stderr)
        return 1
    if not files:
        print("compare: there are no photos", file=sys.stderr)
        return 1
    tasks = options.task or ["ocr", "faces"]
    models = {"ocr": options.ocr_model, "faces": options.faces_model, "clip": options.clip_model}
    asked = comparisons.ask_both(files, tasks, options.url, options.stock, models)
    pictures = list(track(asked, "comparing", total=len(files), console=console))
    summaries = [comparisons.summarise(task, pictures) for task in tasks]
    console.print(comparisons.table(summaries))
    for task in comparisons.not_routed(pictures):
        print(f"compare: {task} was not answered by Triton: it passes through to the stock ML", file=sys.stderr)
    heading = f"{len(pictures)} photos, {options.url} against {options.stock}, {time.strftime('%Y-%m-%d %H:%M')}"
    options.report.write_text(render(pictures, summaries, heading), encoding="utf-8")
    console.print(f"{options.report}: {options.report.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 1 if any(outcome.error for picture in pictures for outcome in picture.outcomes) else 0


def reach(name: str, url: str) -> None:
    """Raise OSError when nobody answers at *url*."""
    try:
        requests.get(f"{url.rstrip('/')}/ping", timeout=10)
    except requests.RequestException as error:
        raise OSError(f"{name} does not answer at {url}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
