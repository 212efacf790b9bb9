#!/usr/bin/env python3
"""Measure what decoding images in processes of their own costs, and what images that cost too much do to the others.

Needs no Triton: starts a pool, decodes a preview there and in this process in turns, then beside each poison sample.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import poison
from PIL import Image
from rich.console import Console
from rich.table import Table

import benchmarks  # noqa: F401 - puts triton_backends on the path
from immich_pipelines.decode import decode_rgb
from immich_pipelines.decoding.client import DecodingPool
from immich_pipelines.errors import BadInput
from immich_triton.server import processes

SERVER: Final = "immich_pipelines.decoding.server"


def main(arguments: list[str] | None = None) -> int:
    """Run the program."""
    options = _parse(arguments)
    console = Console()
    data = preview()
    with contextlib.closing(DecodingPool(options.decoders, triton=os.getpid())) as pool:
        ways = {"whole": lambda: pool.decode(data), "square": lambda: pool.squeeze(data, 224)}
        here, there = _in_turns([lambda: decode_rgb(data), ways["whole"]], options.images)
        table = Table("", "median ms", "p95 ms", title=f"a preview of 1440x1920, {len(data) / 1000:.0f} kB of JPEG")
        _add(table, "in the pipeline's process", here)
        _add(table, "in the pool", there)
        whole, square = (_cpu(way, options.images) for way in (ways["whole"], ways["square"]))
        for name, sample in {**poison.samples(), "jpeg-slow": poison.jpeg_scans(2500, 90)}.items():
            with _attack(pool, sample):
                _add(table, f"in the pool, beside {name}", _in_turns([lambda: pool.decode(data)], options.images)[0])
        console.print(table)
        console.print(
            f"CPU time in the pool: {whole:.1f} ms for a preview, {square:.1f} ms squeezed to 224x224 for CLIP"
        )
        memory = processes.memory(_pool())
        console.print(f"the pool: {memory.pss / 1e6:.1f} MB in {memory.processes} processes (PSS)")
    return 0


def _pool() -> int:
    """Return the process of our pool: the one that the others are children of."""
    found = {
        pid
        for pid in processes.pids()
        if SERVER in (arguments := processes.arguments(pid)) and arguments[-1] == str(os.getpid())
    }
    return next(pid for pid in found if processes.parent(pid) not in found)


def preview() -> bytes:
    """Return a JPEG as Immich makes previews, with as much detail as a photo."""
    image = Image.effect_noise((360, 480), 60).resize((1440, 1920), Image.Resampling.BICUBIC).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@contextlib.contextmanager
def _attack(pool: DecodingPool, sample: bytes) -> Iterator[None]:
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            with contextlib.suppress(BadInput):
                pool.squeeze(sample, 32)
            stop.wait(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _in_turns(ways: list[Callable[[], object]], times: int) -> list[list[float]]:
    """Return milliseconds, *times* for each of *ways*, after one that does not count."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(times + 1):
        for own, way in zip(taken, ways, strict=True):
            began = time.perf_counter()
            way()
            own.append(1000 * (time.perf_counter() - began))
    return [own[1:] for own in taken]


def _cpu(way: Callable[[], object], times: int) -> float:
    """Return the CPU milliseconds that the pool takes for *way*, on average over so many *times*."""
    way()
    members = processes.tree(_pool())
    before = sum(map(processes.cpu_seconds, members))
    for _ in range(times):
        way()
    return 1000 * (sum(map(processes.cpu_seconds, members)) - before) / times


def _add(table: Table, name: str, milliseconds: list[float]) -> None:
    p95 = statistics.quantiles(milliseconds, n=20)[-1]
    table.add_row(name, f"{statistics.median(milliseconds):.1f}", f"{p95:.1f}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--decoders", type=int, default=2, metavar="N", help="processes of the pool (default: %(default)s)")
    add("--images", type=int, default=60, metavar="N", help="previews for each figure (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.decoders < 1 or options.images < 2:
        parser.error("--decoders must be at least 1, --images at least 2")
    return options


if __name__ == "__main__":
    sys.exit(main())
