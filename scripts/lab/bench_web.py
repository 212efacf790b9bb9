"""Measure what the site in front of Immich adds: for what passes through, and for a search; in one run.

    .venv/bin/python scripts/lab/bench_web.py --immich http://127.0.0.1:2283
    IMMICH_API_KEY=… .venv/bin/python scripts/lab/bench_web.py --immich http://127.0.0.1:2283 --query 发票 --query beach

It starts a mitmdump without any script and one with addons/immich_web.py, and asks them and Immich itself in turns
(A B C C B A …). What is added is the median of the differences of neighbours. Run it on a quiet machine: on a busy one
all of it grows, the differences too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from immich_triton.core import versions
from immich_triton.core.paths import PROJECT
from immich_triton.immich.api import KEY_HEADER, SMART, Immich, ImmichError
from immich_triton.server import die_with_parent

ADDON: Final = PROJECT / "addons/immich_web.py"
START: Final = 60.0
"""Seconds that mitmdump may take to start."""
END: Final = 30.0
"""Seconds that it may take to end; after that it is killed."""


class BenchError(Exception):
    """What was to be measured did not happen."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--immich", default="http://127.0.0.1:2283", help="the Immich server (default: %(default)s)")
    add("--path", default="/api/server/ping", help="what passes through, without login (default: %(default)s)")
    add("--query", action="append", default=[], metavar="WORDS", help="also a search; may be repeated. An API key "
        "with asset.read stands in the environment variable IMMICH_API_KEY")  # fmt: skip
    add("--size", type=int, default=100, help="photos on a page of a search (default: %(default)s)")
    add("--requests", type=int, default=200, help="requests of each in a round (default: %(default)s)")
    add("--rounds", type=int, default=6, help="rounds that medians are taken over (default: %(default)s)")
    add("--options", default="", metavar="TEXT", help='mitmproxy options of the site, e.g. "--set web_depth=200"')
    add("--ports", type=int, nargs=2, default=(22841, 22842), metavar=("BARE", "SITE"), help="free ports for the two "
        "(default: 22841 22842)")  # fmt: skip
    return command


def listens(port: int) -> bool:
    """Whether anything listens at a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(mode: str, port: int, more: Sequence[str]) -> Iterator[str]:
    """Start a mitmdump and wait until it listens; gives its address. Raises `BenchError`."""
    if listens(port):
        raise BenchError(f"something listens at port {port} already, and would be measured; give others by --ports")
    line = [str(Path(sys.executable).with_name("mitmdump")), "--mode", mode, "--listen-host", "127.0.0.1"]
    line += ["-p", str(port), *more]
    process = subprocess.Popen(die_with_parent.wrap(line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"mitmdump does not listen at port {port}; try it by hand: {shlex.join(line)}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END)
        process.kill()  # one that has ended takes no notice
        process.wait()


async def ask(session: aiohttp.ClientSession, url: str, body: Any, key: str) -> float:
    """Send one request and return the milliseconds to the end of its answer. Raises `BenchError`."""
    began = time.perf_counter()
    headers = {KEY_HEADER: key} if body else {}
    async with session.request("POST" if body else "GET", url, json=body, headers=headers) as answer:
        await answer.read()
    if answer.status != 200:
        raise BenchError(f"{url} answered {answer.status}")
    return 1000 * (time.perf_counter() - began)


async def measure(
    addresses: Mapping[str, str], path: str, body: Any, key: str, *, requests: int, rounds: int
) -> dict[str, list[float]]:
    """Return the milliseconds by name of *addresses*, after a round that does not count.

    Each request to one is followed by the same to the others, forwards and backwards in turns: what else the machine
    does then falls on all of them, so that differences of neighbours mean something on a busy one too.
    """
    times: dict[str, list[float]] = {name: [] for name in addresses}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for number in range(rounds + 1):
            for turn in range(requests):
                for name in [*addresses] if turn % 2 else [*addresses][::-1]:
                    taken = await ask(session, addresses[name] + path, body, key)
                    times[name] += [taken] if number else []
    return times


def added(times: Sequence[float], beside: Sequence[float]) -> float:
    """Return the median of the differences of neighbours."""
    return statistics.median(one - other for one, other in zip(times, beside, strict=True))


def facts() -> dict[str, str]:
    """Return what the figures depend on."""
    packages = ("mitmproxy", "aiohttp", "rjieba", "opencc")
    return {
        "command": shlex.join([".venv/bin/python", *sys.argv]),
        "machine": f"{os.cpu_count()} logical CPUs, {platform.machine()}, load average {os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
    } | {name: versions.of(name) for name in packages}


async def immich_version(base: str) -> str:
    """Return the version of Immich. Raises `BenchError` when it does not answer."""
    try:
        return await Immich(base, "").version()
    except (ImmichError, LookupError, TypeError, ValueError) as error:
        raise BenchError(f"there is no Immich at {base}: {error!r}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when all was measured, 1 on an error."""
    options = parser().parse_args(arguments)
    key = os.environ.get("IMMICH_API_KEY", "")
    if options.query and not key:
        print("bench_web: --query needs an API key in IMMICH_API_KEY", file=sys.stderr)
        return 1
    base = options.immich.rstrip("/")
    show = Console()
    try:
        for name, value in {**facts(), "immich": asyncio.run(immich_version(base))}.items():
            show.print(f"{name}: {value}", highlight=False)
        with ExitStack() as stack:
            bare = stack.enter_context(running(f"reverse:{base}", options.ports[0], []))
            more = ["-s", str(ADDON), "--set=web_metrics_listen=", *shlex.split(options.options)]
            site = stack.enter_context(running(f"reverse:{base}", options.ports[1], more))
            addresses = {"Immich itself": base, "bare mitmdump": bare, "the site": site}
            table = Table("median in ms", *addresses, "added to bare", "added to Immich")
            searches = [(f"search {query}", SMART, {"query": query, "size": options.size}) for query in options.query]
            for name, path, body in [(options.path, options.path, None), *searches]:
                many = options.requests if body is None else max(1, options.requests // 10)
                times = asyncio.run(measure(addresses, path, body, key, requests=many, rounds=options.rounds))
                direct, plain, ours = times.values()
                figures = (*map(statistics.median, times.values()), added(ours, plain), added(ours, direct))
                table.add_row(name, *(f"{figure:.2f}" for figure in figures))
            show.print(table)
    except (BenchError, aiohttp.ClientError) as error:
        print(f"bench_web: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
