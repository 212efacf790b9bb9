"""Measure everything on the NVIDIA card in one run of at most five minutes, and print one table.

    PYTHON scripts/lab/gpu.py --models DIR --against http://127.0.0.1:3003

PYTHON is that of the environment that immich-triton setup --gpu made, DIR a repository exported with --gpu.

Versions, the card, each network alone, the gateway and stock Immich MLs with 1, 4, 16 and 32 clients for every task
that the repository routes, the first requests after a start, memory, and whether the answers are those of the CPU.
Then, in the time that is left, what may make the networks faster: CUDA graphs, NHWC, fp16, TensorRT.
CLIP may have random weights. Without a card it says so and exits with 2; --device cpu tries its parts on any machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import card, card_services, decoding, levers
from benchmarks.samples import Sample, from_files, pages, previews
from benchmarks.service import own
from benchmarks.targets import BenchError
from immich_pipelines.cpus import available_cpus
from immich_triton.core import versions
from immich_triton.core.paths import MODELS, PROJECT
from immich_triton.export.network_places import Place, places
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.routes import load_routes
from immich_triton.server import graphics_cards
from immich_triton.server.preflight import StartError
from ocr_eval.fonts import FontsMissingError

LOG: Final = PROJECT / ".run/gpu.log"
TASKS: Final = {"ocr": "ocr", "faces": "facial-recognition", "clip": "clip"}
"""What is measured, and what routes call it."""
OPTIONS: Final = "--set immich_allow_untrained=true"
NO_CARD: Final = 2
ALONE_SECONDS: Final = 60.0
"""What a network alone may take, the preparation of its shapes included."""
NO_LEVERS: Final = "cn_clip_"
"""Encoders of CLIP are exported in fp16 already, and take long to load."""

Rows = list[tuple[str, str]]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when all was measured, 1 on an error, 2 when there is no card."""
    options = parser().parse_args(arguments)
    rows: Rows = []
    began = time.monotonic()
    try:
        rows += facts(options.device)
    except StartError as error:
        print(f"gpu: {error}".replace(graphics_cards.WITHOUT, "or try --device cpu"), file=sys.stderr)
        return NO_CARD
    try:
        for row in Measurement(options, began + options.seconds).rows():
            rows.append(row)
            print(f"{time.monotonic() - began:6.1f} s  {row[0]}: {row[1]}", file=sys.stderr, flush=True)
    except (BenchError, FontsMissingError, RouteError, OSError, ValueError) as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 1
    rows.append(("seconds in all", f"{time.monotonic() - began:.0f}"))
    table = Table("what", "value", title="immich-triton on " + ("a GPU" if options.device == "gpu" else "the CPU"))
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)
    if options.json:
        options.json.write_text(json.dumps(dict(rows), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--models", type=Path, default=MODELS, metavar="DIR", help="the model repository (default: triton_models)")
    add("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: to try this program (default: %(default)s)")
    add("--against", action="append", default=[], metavar="[NAME=]URL", help="a stock Immich ML; may be repeated")
    add("--clients", type=int, nargs="+", default=[1, 4, 16, 32], metavar="N", help="clients (default: 1 4 16 32)")
    add("--seconds", type=float, default=285, help="when to stop measuring, with what there is (default: %(default)s)")
    add("--each", type=float, default=4, metavar="SECONDS", help="length of each rate (default: %(default)s)")
    add(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help="ocr, faces, clip (default: all)"
    )
    add("--images", type=Path, nargs="+", metavar="PATH", help="images or folders for faces and CLIP (default: the "
        "project's test images as previews of 1440 pixels)")  # fmt: skip
    add("--pages", type=Path, nargs="+", metavar="PATH", help="the same for OCR (default: pages of eval_ocr.py)")
    add("--limit", type=int, metavar="N", help="only the first N images")
    add("--sizes", type=int, default=12, metavar="N", help="images of different sizes after the start (default: 12)")
    add("--soak", type=int, default=0, metavar="N", help="images of different sizes for each task, to see what memory "
        "they take (default: %(default)s)")  # fmt: skip
    add("--reference", type=Path, metavar="FILE", help="what the CPU answers: read there, or written there when there "
        "is no such file (default: asked for each time)")  # fmt: skip
    add("--runs", type=int, default=card.RUNS, metavar="N", help="runs of a network alone (default: %(default)s)")
    names = [lever.name for lever in levers.LEVERS]
    add("--levers", nargs="*", default=names, metavar="NAME",
        help=f"what to try on the networks in the end (default: {', '.join(names)})")  # fmt: skip
    add("--networks-only", action="store_true", help="the networks alone and the levers: no gateway, no stock")
    add("--services-only", action="store_true", help="the gateway and stock: no networks alone, no levers")
    add("--json", type=Path, metavar="FILE", help="write the table there")
    return command


def facts(device: str) -> Iterator[tuple[str, str]]:
    """Yield versions and the card. Raises `StartError` where --device gpu finds none that can be used."""
    if device == "gpu":
        for each in graphics_cards.look():
            if reason := graphics_cards.unfit(each):
                raise StartError(reason)
            yield f"GPU {each.index}", str(each)
    for package in ("nvidia-pytriton", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "openvino"):
        yield package, versions.of(package)
    yield "onnxruntime", versions.of_onnx_runtime()
    yield "immich-triton", versions.own()


class Measurement:
    """All that is measured, until the monotonic time *deadline*."""

    def __init__(self, options: argparse.Namespace, deadline: float) -> None:
        self._options = options
        self._gpu = options.device == "gpu"
        self._deadline = deadline
        routes = load_routes(options.models).routes
        self._models = {
            task: next(iter(route.names))
            for task, name in TASKS.items()
            for route in routes
            if route.task == name and task in options.tasks
        }
        """Of each task one model name that is routed."""
        if not self._models:
            raise BenchError(f"{options.models} routes no task; make models with immich-triton export ocr --gpu")

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield one row after the other. Raises `BenchError`, OSError, `FontsMissingError`."""
        if not self._options.services_only:
            yield from self._networks()
        if not self._options.networks_only:
            yield from self._services()
        if self._options.services_only:
            return
        # The card is free again.
        yield from levers.rows(
            [self._options.models / place.name for place in self._places() if not place.name.startswith(NO_LEVERS)],
            self._options.levers,
            gpu=self._gpu,
            runs=self._options.runs,
            deadline=self._deadline,
        )

    def _services(self) -> Iterator[tuple[str, str]]:
        samples = {task: self._samples(task) for task in self._models}
        reference = self._answers_of_the_cpu(samples)
        for task, chosen in samples.items():
            rate = decoding.rate(task, chosen, self._options.each)
            yield f"{task}: decoding alone on {available_cpus()} CPUs", f"{rate:.1f}/s"
        began = time.monotonic()
        with own(self._options.models, OPTIONS, LOG, ["--gpu"] if self._gpu else []) as gateway:
            yield "gateway: seconds to start", f"{time.monotonic() - began:.1f}"
            yield from card_services.Services(gateway, self._models, self._options, self._deadline).rows(
                samples, reference
            )

    def _places(self) -> list[Place]:
        """Return the networks that are computed where this measures."""
        return [place for place in places(self._options.models) if place.gpu or not self._gpu]

    def _networks(self) -> Iterator[tuple[str, str]]:
        for place in places(self._options.models):
            if self._gpu and not place.gpu:
                yield f"{place.name} alone", "not placed on a GPU"
                continue
            # In a process of its own: what the card's memory holds then is what the gateway takes.
            line = [sys.executable, "-c", _ALONE, str(self._options.models / place.name), str(int(self._gpu))]
            left = max(1.0, min(ALONE_SECONDS, self._deadline - time.monotonic()))
            try:
                done = subprocess.run(
                    [*line, str(self._options.runs)], capture_output=True, text=True, check=False, timeout=left
                )
            except subprocess.TimeoutExpired:
                yield f"{place.name} alone", f"not measured: took longer than {left:.0f} s"
                continue
            if done.returncode:
                yield f"{place.name} alone", f"failed: {done.stderr.strip().splitlines()[-1]}"
                continue
            times = json.loads(done.stdout.splitlines()[-1])
            yield f"{place.name} alone, ms", ", ".join(f"{shape}: {value:.2f}" for shape, value in times.items())

    def _samples(self, task: str) -> list[Sample]:
        options = self._options
        given, drawn = (options.pages, pages) if task == "ocr" else (options.images, previews)
        chosen = from_files(given) if given else drawn()
        if not (chosen := chosen[: options.limit]):
            raise BenchError("there are no images to send; see --images and --limit")
        return chosen

    def _answers_of_the_cpu(self, samples: dict[str, list[Sample]]) -> dict[str, list[dict[str, Any]]]:
        file: Path | None = self._options.reference
        if file is not None and file.exists():
            kept: dict[str, list[dict[str, Any]]] = json.loads(file.read_text(encoding="utf-8"))
            return kept
        if not self._gpu and file is None:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            card.on_cpu(self._options.models, Path(folder) / "models")
            with own(Path(folder) / "models", OPTIONS, LOG.with_name("gpu-reference.log")) as gateway:
                answers = {
                    task: asyncio.run(card_services.answers(gateway.url, task, self._models[task], chosen))
                    for task, chosen in samples.items()
                }
        if file is not None:
            file.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
        return answers


_ALONE: Final = f"""
import json, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from benchmarks.card import network_times
print(json.dumps(network_times(Path(sys.argv[1]), gpu=sys.argv[2] == "1", runs=int(sys.argv[3]))))
"""


if __name__ == "__main__":
    sys.exit(main())
