"""Stock Immich ML's libraries, exactly its versions, in an environment and a process of their own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from immich_triton.export.repository import PROJECT
from immich_triton.server import die_with_parent

LOCK: Final = PROJECT / "requirements-stock.lock"
APP: Final = Path(__file__).with_name("stock_app.py")
_READY: Final = ".installed"

Header = tuple[str, str]


@dataclass(frozen=True)
class Seen:
    """What stock makes of one request: status, ``[task, type, name]`` of each model, the payload."""

    status: int
    ran: tuple[tuple[str, ...], ...] = ()
    image: str | None = None
    text: str | None = None
    detail: str = ""


class StockPipe:
    """Asks stock's app without HTTP in between: thousands of requests in seconds."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ask(self, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, chunk: int = 65536) -> Seen:
        """POST *body*, which arrives in pieces of *chunk* bytes."""
        head = {
            "target": target.decode("latin-1"),
            "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
            "length": len(body),
            "chunk": chunk,
        }
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps(head).encode() + b"\n" + body)
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return Seen(**{**answer, "ran": tuple(map(tuple, answer.get("ran", ())))})


class StockServer:
    """Stock's app behind stock's server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def take_ran(self) -> list[list[str]]:
        """Return ``[task, type, name]`` of each model that it would have run since the last time."""
        taken: list[list[str]] = requests.get(f"{self.url}/ran", timeout=60).json()
        return taken


@contextmanager
def stock_pipe() -> Iterator[StockPipe]:
    """Run the app, to be asked directly."""
    with _running("pipe") as process:
        yield StockPipe(process)


@contextmanager
def stock_server() -> Iterator[StockServer]:
    """Run the app behind uvicorn."""
    with _running("serve") as process:
        assert process.stdout
        yield StockServer(f"http://127.0.0.1:{int(process.stdout.readline())}")


@contextmanager
def _running(mode: str) -> Iterator[subprocess.Popen[bytes]]:
    line = die_with_parent.wrap([str(_interpreter()), str(APP), mode])
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def _interpreter() -> Path:
    """Return the interpreter of the environment, making that when it is not there: half a minute, once."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    target = PROJECT / ".cache" / f"stock-{digest}"
    target.parent.mkdir(exist_ok=True)
    # Two test runs that start at once: the second waits and finds it made.
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / _READY).exists():
            _make(target)
    return target / "bin" / "python"


def _make(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    venv.create(target, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(target / "bin" / "python"), "--disable-pip-version-check"]
    # --no-deps: the lock is complete.
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(LOCK)], check=True)
    (target / _READY).touch()
