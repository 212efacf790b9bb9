"""Watch the memory of a gateway under mitmweb while thousands of requests with images go through it.

Start it first: make run WEB=1, and a stock ML behind it. Half of the requests are OCR on tiny images, half are images
that pass through and that the stock ML refuses. (Stock 2.7.5 takes half a second to log a refusal: 20 minutes in all.)
"""

from __future__ import annotations

import argparse
import io
import random
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from immich_triton.immich.ml_client import Answer, entries_for, predict
from immich_triton.server import processes

PASSES_THROUGH: dict[str, Any] = {"pet-detection": {"detection": {"modelName": "none"}}}
"""A task that nobody knows: the stock ML refuses it without computing anything."""


BY_TRITON: Final = frozenset({200})

BY_STOCK: Final = frozenset({200, 422, 500})
"""How the stock ML itself answers what it does not know; 502 to 504 would be the gateway's, which did not reach it."""


class WrongAnswer(Exception):  # noqa: N818 - an answer that ends the run, not a fault of ours
    """What was to be measured did not happen."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--url", default="http://127.0.0.1:3004", help="the gateway (default: %(default)s)")
    command.add_argument("--count", type=int, default=5000, help="requests in all (default: %(default)s)")
    command.add_argument(
        "--warm-up", type=int, default=1000, help="of these, before growth counts (default: %(default)s)"
    )
    command.add_argument(
        "--kilobytes", type=int, default=200, help="of each image that passes through (default: %(default)s)"
    )
    command.add_argument("--concurrency", type=int, default=4, help="requests at a time (default: %(default)s)")
    command.add_argument(
        "--most", type=float, default=5.0, help="percent of growth that is allowed (default: %(default)s)"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 when memory grew by more than allowed, or nothing answers."""
    options = parser().parse_args(arguments)
    if options.count < 2 or 10 * options.warm_up > 9 * options.count:
        print(
            f"flow_memory: --count {options.count} leaves nothing to measure after --warm-up {options.warm_up}; "
            "the warm-up may be nine tenths of the count at most",
            file=sys.stderr,
        )
        return 1
    console = Console(highlight=False)
    pid = processes.listener(urlsplit(options.url).port or 80)
    if pid is None:
        print(
            f"flow_memory: nothing on this machine listens at {options.url}; start it: make run WEB=1", file=sys.stderr
        )
        return 1
    try:
        measured = measure(options, pid, console)
    except (requests.RequestException, WrongAnswer) as error:
        print(f"flow_memory: {error}", file=sys.stderr)
        return 1
    table = Table("requests", "memory of the gateway")
    for count, mebibytes in measured:
        table.add_row(f"{count:,}", f"{mebibytes:.0f} MiB")
    console.print(table)
    settled = next(mebibytes for count, mebibytes in measured if count >= options.warm_up)
    growth = 100 * (measured[-1][1] / settled - 1)
    console.print(f"growth from {options.warm_up:,} to {options.count:,} requests: {growth:+.1f} %")
    return 0 if growth <= options.most else 1


def measure(options: argparse.Namespace, pid: int, console: Console) -> list[tuple[int, float]]:
    """Return the number of requests so far with the resident memory in MiB, ten times during the run.

    Raises `WrongAnswer` when one is not what it has to be: memory stays flat too while everything is refused.
    """
    tiny, large = tiny_images(), padded(options.kilobytes)

    def ask(number: int) -> None:
        if number % 2:
            check("OCR", predict(options.url, entries_for("ocr"), image=tiny[number // 2 % len(tiny)]), BY_TRITON)
        else:
            check("what passes through", predict(options.url, PASSES_THROUGH, image=large), BY_STOCK)

    step = max(1, options.count // 10)
    measured = []
    with ThreadPoolExecutor(options.concurrency) as pool, Progress(console=console, transient=True) as progress:
        asking = progress.add_task("asking", total=options.count)
        for start in range(0, options.count, step):
            for _ in pool.map(ask, range(start, min(start + step, options.count))):
                progress.advance(asking)
            measured.append((min(start + step, options.count), resident(pid)))
    return measured


def check(what: str, answer: Answer, statuses: Collection[int]) -> None:
    """Raise `WrongAnswer` when the status is none of *statuses*."""
    if answer.status not in statuses:
        body = " ".join(str(answer.body).split())[:200]
        raise WrongAnswer(f"{what} was answered {answer.status}: {body}; put that right, then measure again")


def resident(pid: int) -> float:
    """Return the resident memory of a process and its children in MiB."""
    return processes.memory(pid).rss / (1 << 20)


def tiny_images() -> list[bytes]:
    """Return small pictures of different sizes: detection alone takes a few milliseconds on them."""
    return [encoded(size, size + 16 * turn, seed=turn) for turn, size in enumerate((32, 48, 64, 40, 56))]


def padded(kilobytes: int) -> bytes:
    """Return a JPEG of about that size."""
    image = encoded(320, 240, seed=99)
    # After the end of the image readers stop: what follows costs nothing but its transport.
    return image + random.Random(7).randbytes(max(0, 1000 * kilobytes - len(image)))  # noqa: S311 - no secret


def encoded(width: int, height: int, *, seed: int) -> bytes:
    """Return a JPEG of noise."""
    pixels = random.Random(seed).randbytes(3 * width * height)  # noqa: S311 - no secret
    file = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(file, "JPEG", quality=80)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
