"""Measure whole ``/predict`` requests through the gateway, against others on the same machine, in one run.

    .venv/bin/python scripts/lab/bench.py --engine --against http://127.0.0.1:3003     OCR: images/s, latency, memory, …
    .venv/bin/python scripts/lab/bench.py --task clip --engine --against …             images, queries, batching
    .venv/bin/python scripts/lab/bench.py --task faces --crowd group.jpg --against …   faces
    .venv/bin/python scripts/lab/bench.py --memory 5000                                does memory grow?

Without --url it starts a gateway and a Triton of its own. Who is compared takes turns (A B B A …); rates and ratios are
medians over the rounds. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import requests
from rich.console import Console

from benchmarks import clip, cpu_time, crowd, environment, growth, overhead, shares, throughput
from benchmarks.load import Clients, Contender
from benchmarks.network import as_configured, in_onnxruntime
from benchmarks.samples import IMAGES, Sample, from_files, pages
from benchmarks.service import Gateway, attached, own
from benchmarks.targets import BenchError, RapidEngine, Service, Straight, route_of
from immich_triton.core import direct_requests
from immich_triton.core.paths import MODELS, PROJECT
from immich_triton.core.secrets import secret
from immich_triton.triton import wire as triton_wire
from ocr_eval.fonts import FontsMissingError

LOG = PROJECT / ".run/bench.log"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when all was measured, 1 on an error."""
    options = parser().parse_args(arguments)
    show = Console()
    warning = environment.warning()
    try:
        options.triton_key = secret("--triton-key", options.triton_key)
        with running(options) as gateway:
            facts = environment.describe(gateway)
            for name, value in facts.items():
                show.print(f"{name}: {value}", highlight=False)
            if warning:
                show.print(f"warning: {warning}", style="yellow")
            results = {"environment": facts, **asyncio.run(bench(options, gateway, show))}
    except (BenchError, FontsMissingError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--task", choices=("ocr", "clip", "faces"), default="ocr", help="what to measure (default: %(default)s)")
    add("--url", help="a gateway that runs already (default: start one, and a Triton)")
    add("--triton", default="http://127.0.0.1:8000", help="Triton behind --url (default: %(default)s)")
    add("--triton-key", default="", metavar="WHERE", help="if Triton asks for a key, where it stands "
        "(immich_triton_key of the gateway): file:PATH or env:NAME")  # fmt: skip
    add("--metrics", default="http://127.0.0.1:8002", help="its metrics (default: %(default)s)")
    add("--models", type=Path, default=MODELS, help="the model repository (default: triton_models)")
    add("--options", default="", metavar="TEXT", help="without --url: mitmproxy options, as of immich-triton run")
    add("--model", help="the Immich model name to ask for (default: Immich's own default)")
    add("--against", action="append", default=[], metavar="[NAME=]URL", help="a stock Immich ML; may be repeated")
    add("--engine", action="store_true", help="OCR: also RapidOCR in this process; CLIP: the encoder alone")
    add("--threads", type=int, default=os.cpu_count(), help="threads of --engine (default: all cores)")
    add("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="clients (default: 1 2 4 8)")
    add("--rounds", type=int, default=3, help="rounds that medians are taken over (default: %(default)s)")
    add("--images", type=Path, nargs="+", metavar="PATH", help="images or folders (default: the project's test images, "
        "for OCR also a third of the upright pages of eval_ocr.py)")  # fmt: skip
    add("--limit", type=int, metavar="N", help="only the first N images")
    add("--overhead", type=int, default=200, metavar="N", help="pairs for the gateway's own cost; 0: leave it out")
    add("--processes", type=int, default=0, metavar="N", help="CPU time of each process over N requests of the most "
        "clients")  # fmt: skip
    add("--memory", type=int, metavar="N", help="instead: memory of the gateway over N requests, of Triton over "
        "--sizes images")  # fmt: skip
    add("--sizes", type=int, default=500, metavar="N", help="images of different sizes for --memory (default: 500)")
    add("--warm-up", type=int, default=500, metavar="N", help="requests before --memory counts (default: 500)")
    add("--crowd", type=Path, metavar="IMAGE", help="faces: a photo with many faces")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    return command


def running(options: argparse.Namespace) -> contextlib.AbstractContextManager[Gateway]:
    """Give the gateway to measure. Raises `BenchError` when it does not answer."""
    if options.url:
        return contextlib.nullcontext(attached(options.url, options.triton, options.metrics, options.models))
    return own(options.models, options.options, LOG)


async def bench(options: argparse.Namespace, gateway: Gateway, show: Console) -> dict[str, Any]:
    """Make all measurements that were asked for."""
    async with contextlib.AsyncExitStack() as stack:
        service = Service("gateway", gateway.url, options.task, model=options.model)
        stack.push_async_callback(service.close)
        if options.memory:
            return {
                "growth": await growth.measure(gateway, service, options.memory, options.sizes, options.warm_up, show)
            }
        images = samples(options)
        results: dict[str, Any] = {}
        rivals = [Clients(rival, cpu_time.of([rival.url])) for rival in await against(options, stack)]
        ours = Clients(service, cpu_time.of([gateway.url, gateway.triton]))

        def others(concurrency: int) -> Sequence[Contender]:
            return [*rivals, *alone(options, gateway, concurrency)]

        results["throughput"] = await throughput.measure(
            ours, others, images, options.concurrency, options.rounds, show
        )
        results["memory"] = growth.at_rest(gateway, show)
        if options.overhead:
            async with straight(options, gateway) as triton:
                results["overhead"] = await overhead.measure(service, triton, images, options.overhead, show)
        if options.processes:
            urls = [gateway.url, gateway.triton]
            clients = max(options.concurrency)
            results["processes"] = await shares.measure(service, urls, images, options.processes, clients, show)
        if options.task == "clip":
            results |= await search(options, gateway, service, images, show)
        if options.crowd:
            model = network_of(options, gateway, "recognition")
            recognisers = [
                in_onnxruntime("in ONNX Runtime, as stock's", file_of(gateway, model), options.threads),
                as_configured("in the engine of its config", file_of(gateway, model), config_of(gateway, model)),
            ]
            (photo,) = from_files([options.crowd])
            results["crowd"] = await crowd.measure(service, recognisers, photo, show)
        return results


async def search(
    options: argparse.Namespace, gateway: Gateway, images: Service, photos: Sequence[Sample], show: Console
) -> dict[str, Any]:
    """Measure queries and batching."""
    texts = Service("gateway", gateway.url, "clip-text", model=options.model)
    try:
        model = network_of(options, gateway, "textual")
        encoder = in_onnxruntime("encoder alone", file_of(gateway, model), options.threads)
        route = route_of(gateway.models, "clip", model=options.model)
        return {
            "text": await clip.text(texts, encoder, images, photos, options.rounds, show),
            "batching": await clip.batching(images, photos, gateway.metrics, route.pipeline("visual").models[0], show),
        }
    finally:
        await texts.close()


def samples(options: argparse.Namespace) -> list[Sample]:
    """Return the images to send. Raises OSError, `FontsMissingError`, or `BenchError` when there are none."""
    if options.images:
        chosen = from_files(options.images)
    else:
        chosen = from_files([IMAGES]) + (pages() if options.task == "ocr" else [])
    if not (chosen := chosen[: options.limit]):
        raise BenchError("there are no images to send; see --images and --limit")
    return chosen


async def against(options: argparse.Namespace, stack: contextlib.AsyncExitStack) -> list[Service]:
    """Return the services to compare with."""
    services = []
    for number, text in enumerate(options.against, 1):
        name, _, url = text.rpartition("=")
        services.append(Service(name or f"stock {number}", url, options.task, model=options.model))
        stack.push_async_callback(services[-1].close)
    return services


def alone(options: argparse.Namespace, gateway: Gateway, concurrency: int) -> list[Contender]:
    """Return the engine without any service around it, if asked for."""
    if not options.engine:
        return []
    if options.task == "ocr":
        return [Clients(RapidEngine(workers=concurrency, threads=options.threads))]
    kind, name = ("visual", "encoder alone") if options.task == "clip" else ("detection", "detector alone")
    model = network_of(options, gateway, kind)
    return [in_onnxruntime(name, file_of(gateway, model), options.threads)]


def network_of(options: argparse.Namespace, gateway: Gateway, kind: str) -> str:
    """Return the name of the ONNX model behind a type of the task. Raises `BenchError`."""
    pipeline = route_of(gateway.models, options.task, model=options.model).pipeline(kind)
    # A pipeline with two networks names them by role; an encoder is the only one.
    role = {"detection": "detector", "recognition": "recognizer"}.get(kind, "encoder")
    return str(pipeline.parameters.get(role, pipeline.models[0]))


def file_of(gateway: Gateway, model: str) -> Path:
    """Return the ONNX file of a model in the repository."""
    return gateway.models / model / "1/model.onnx"


def config_of(gateway: Gateway, model: str) -> dict[str, Any]:
    """Return the config of a model as Triton completed it. Raises `BenchError`."""
    try:
        answer = direct_requests.get(gateway.triton + triton_wire.config(model), timeout=10)
        answer.raise_for_status()
        config: dict[str, Any] = answer.json()
    except requests.RequestException as error:
        raise BenchError(f"Triton at {gateway.triton} does not tell the config of {model}: {error}") from error
    return config


@contextlib.asynccontextmanager
async def straight(options: argparse.Namespace, gateway: Gateway) -> AsyncIterator[Straight]:
    """Give the way to Triton that leaves the gateway out."""
    key = options.triton_key
    target = Straight(gateway.triton, gateway.models, options.task, model=options.model, key=key)
    try:
        yield target
    finally:
        await target.close()


if __name__ == "__main__":
    sys.exit(main())
