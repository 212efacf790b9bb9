"""Let the gateway, RapidOCR and a stock Immich ML read the same rendered pages, and mark them.

    .venv/bin/python scripts/lab/eval_ocr.py --engine --against http://127.0.0.1:3003

Renders over 400 lines with known text (simplified, traditional, English, numbers, mixed; clean, rotated, blurred, JPEG
quality 50, low contrast, turned; vertical, leaning, in pieces) as Immich previews and prints detection recall, exact
lines, character accuracy, how many lines come in reading order, and how many characters were read in the other Chinese
script. --defects and --scenes are other pages: with what a camera does to them, and in both scripts.
How lines are matched and texts compared: scripts/lab/ocr_eval/scoring.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, track
from rich.table import Table

from ocr_eval.defects import NAMES, UNIFORM, spoiled
from ocr_eval.fonts import FontsMissingError
from ocr_eval.pages import Page, exam, pixel_digest, upright, widened
from ocr_eval.readers import RapidReader, Reader, ReaderError, ServiceReader
from ocr_eval.scenes import scenes
from ocr_eval.scoring import Report, Tally
from ocr_eval.texts import Script


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when every engine was marked, 1 on an error."""
    options = parser().parse_args(arguments)
    # Progress goes to standard error, so that --json can be piped.
    console, progress = Console(), Console(stderr=True)
    try:
        pages = list(track(islice(chosen(options), options.pages), "rendering", None, console=progress, transient=True))
        if options.aspect:
            pages = [widened(page, options.aspect) for page in pages]
        if options.save:
            save(pages, options.save)
        reports = {reader.name: sit(reader, pages, progress) for reader in readers(options)}
    except (FontsMissingError, ReaderError) as error:
        print(f"eval_ocr: {error}", file=sys.stderr)
        return 1
    if options.json:
        result = {"pages": pixel_digest(pages), "engines": {name: report.as_dict() for name, report in reports.items()}}
        print(json.dumps(result, ensure_ascii=False, indent=1))
    else:
        lines = sum(len(page.lines) for page in pages)
        console.print(f"{lines} lines on {len(pages)} pages, pixels {pixel_digest(pages)[:12]}")
        console.print(totals_table(reports))
        console.print(categories_table(reports))
        if options.mistakes:
            console.print(mistakes_table(reports))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument(
        "--url", default="http://127.0.0.1:3004", help="the gateway; '' to leave it out (default: %(default)s)"
    )
    command.add_argument("--engine", action="store_true", help="RapidOCR in this process, with its own models")
    command.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of --engine (default: all cores)")
    command.add_argument(
        "--against", action="append", default=[], metavar="[NAME=]URL", help="a stock Immich ML; may be repeated"
    )
    command.add_argument(
        "--networks",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="the OCR networks of a model repository in this process, in fp32: as on a CPU, and on a GPU's shape table "
        "(only as on a CPU with --precision); may be repeated",
    )
    command.add_argument(
        "--precision",
        choices=["bf16", "f32"],
        help="of --networks: in OpenVINO instead, as an export runs on a CPU with units for this",
    )
    command.add_argument(
        "--half", action="store_true", help="with --networks: on the table as they would compute in fp16, too"
    )
    command.add_argument("--model", help="the Immich model name to ask for (default: Immich's own default)")
    command.add_argument(
        "--defects",
        nargs="*",
        choices=NAMES,
        metavar="NAME",
        help=f"instead: the upright pages with defects, all or some of {', '.join(NAMES)}",
    )
    command.add_argument(
        "--scenes",
        action="store_true",
        help="instead, or beside --defects: notice, menu and station in one script and in both, also with noise",
    )
    command.add_argument("--pages", type=int, metavar="N", help="only the first N pages, for a quick try")
    command.add_argument(
        "--aspect",
        type=_aspect,
        metavar="RATIO",
        help="extend the pages by their edge until the long side is so many times the short one (default: 4:3 as they "
        "are, on which no canvas of a GPU has an empty part)",
    )
    command.add_argument("--mistakes", action="store_true", help="print every line that was not read exactly")
    command.add_argument("--save", type=Path, metavar="DIR", help="keep the pages and their truth there")
    command.add_argument("--json", action="store_true", help="print the figures as JSON, mistakes included")
    return command


def _aspect(text: str) -> float:
    with contextlib.suppress(ValueError):  # no number
        if 1 <= (ratio := float(text)) <= 10:
            return ratio
    raise argparse.ArgumentTypeError(f"a ratio from 1 to 10, not {text}")


def chosen(options: argparse.Namespace) -> Iterator[Page]:
    """Yield the pages that the command line asks for. Raises `FontsMissingError`."""
    # Without a name: all of them.
    defects = [] if options.defects is None else [NAMES[name] for name in options.defects or NAMES]
    if not defects and not options.scenes:
        yield from exam()
        return
    yield from spoiled(upright(), defects)
    if options.scenes:
        pages = list(scenes())
        yield from pages
        yield from spoiled(pages, UNIFORM)


def readers(options: argparse.Namespace) -> list[Reader]:
    """Return who sits the exam."""
    chosen: list[Reader] = []
    if options.url:
        chosen.append(ServiceReader("gateway", options.url, model=options.model))
    if options.engine:
        chosen.append(RapidReader(options.threads))
    if options.networks:
        from ocr_eval.networks import NetworksReader  # heavy to import

        for models in options.networks:
            if options.precision:
                chosen.append(NetworksReader(models, options.threads, precision=options.precision))
            else:
                chosen += [NetworksReader(models, options.threads, table=table) for table in (False, True)]
                if options.half and not options.precision:
                    chosen.append(NetworksReader(models, options.threads, table=True, half=True))
    for number, text in enumerate(options.against, 1):
        name, _, url = text.rpartition("=")
        chosen.append(ServiceReader(name or f"against {number}", url, model=options.model))
    return chosen


def sit(reader: Reader, pages: Sequence[Page], console: Console) -> Report:
    """Let *reader* read all *pages*. Raises `ReaderError`."""
    report = Report()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for page in progress.track(pages, description=reader.name):
            report.add(page, *reader.read(page))
    return report


def totals_table(reports: Mapping[str, Report]) -> Table:
    """One row an engine."""
    columns = "detection recall", "exact lines", "but for spaces", "characters", "in order", "mix-ups", "extra boxes"
    table = Table("engine", *columns, "median s/page")
    for name, report in reports.items():
        seconds = report.as_dict()["seconds_per_page_median"]
        table.add_row(name, *_marks(report.total), str(report.extra), f"{seconds:.2f}")
    return table


def categories_table(reports: Mapping[str, Report]) -> Table:
    """One row a category; for every engine recall, exact lines (also but for spaces), characters, order, mix-ups."""
    heading = "recall / exact / but for spaces / characters / in order / mix-ups"
    table = Table("category", "lines", *(f"{name}\n{heading}" for name in reports))
    every = [name for report in reports.values() for name in report.categories]
    # Scripts first, then what was done to the pages, in the order of the pages.
    for category in sorted(dict.fromkeys(every), key=lambda name: name not in set(Script)):
        tallies = [report.categories[category] for report in reports.values()]
        table.add_row(category, str(tallies[0].lines), *(" / ".join(_marks(tally)) for tally in tallies))
    return table


def mistakes_table(reports: Mapping[str, Report]) -> Table:
    """Every line that was not read exactly."""
    table = Table("engine", "page", "truth", "read")
    for name, report in reports.items():
        for mistake in report.mistakes:
            table.add_row(name, mistake["page"], mistake["truth"], mistake["read"])
    return table


def save(pages: Sequence[Page], folder: Path) -> None:
    """Write every page as a JPEG and the truth of all as ``truth.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for page in pages:
        (folder / f"{page.name}.jpg").write_bytes(page.jpeg)
        truth[page.name] = [{"text": line.text, "quad": line.quad.round(1).tolist()} for line in page.lines]
    (folder / "truth.json").write_text(json.dumps(truth, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _marks(tally: Tally) -> tuple[str, ...]:
    rates = tally.recall, tally.exact_rate, tally.unspaced_rate, tally.character_accuracy, tally.order_rate
    return (*(f"{rate:.1%}" for rate in rates), str(tally.mix_ups))


if __name__ == "__main__":
    sys.exit(main())
