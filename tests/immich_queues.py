"""Immich's queues for a test: a real Redis, and a worker with Immich's BullMQ, which tells the double of each job."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pytest
import redis
from places import PROJECT

from harness.ports import free_ports
from harness.program import eventually
from immich_triton.server import die_with_parent

VERSIONS: Final = {"bullmq-5-74": "5.74.1", "bullmq-5-80": "5.80.5"}
"""Of Immich 2.7.5 and 3.1.0."""

SOURCE: Final = Path(__file__).parent / "bullmq_worker"


@dataclass
class Redis:
    """A running Redis; *client* speaks to it."""

    port: int
    client: redis.Redis

    @property
    def url(self) -> str:
        """Return what ``web_redis_url`` is to be."""
        return f"redis://127.0.0.1:{self.port}/0"

    def content(self) -> dict[str, object]:
        """Return all that it holds, apart from what BullMQ remembers of its workers."""
        keys = sorted(key for key in self.client.scan_iter() if not key.endswith((b":stalled-check", b":marker")))
        return {key.decode(): self.client.dump(key) for key in keys}

    def said(self, queue: str, event: str) -> list[str]:
        """Return the ids of the jobs that had *event*."""
        entries: Any = self.client.xrange(f"immich_bull:{queue}:events")
        return [fields[b"jobId"].decode() for _, fields in entries if fields[b"event"].decode() == event]


@contextmanager
def running_redis(directory: Path) -> Iterator[Redis]:
    """Run Redis on a free port, with nothing in it; skip the test where there is none."""
    if not (program := shutil.which("redis-server")):
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    (port,) = free_ports(1)
    line = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen(die_with_parent.wrap(line), stdout=log, stderr=log)
    client = redis.Redis(port=port)
    try:
        assert eventually(lambda: _answers(client)), (directory / "redis.log").read_text()
        yield Redis(port, client)
    finally:
        client.close()
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@dataclass
class Worker:
    """A running worker, which tells the double of each job."""

    process: subprocess.Popen[str]

    def pause(self, queue: str) -> None:
        """Pause a queue, as an administrator does."""
        self._say({"pause": queue})

    def resume(self, queue: str) -> None:
        """Let a paused queue go on."""
        self._say({"resume": queue})

    def add(self, queue: str, name: str, **data: str) -> None:
        """Add a job, as Immich itself does."""
        self._say({"add": queue, "name": name, "data": data})

    def _say(self, order: dict[str, object]) -> None:
        write, read = _pipes(self.process)
        write.write(json.dumps(order) + "\n")
        write.flush()
        assert read.readline() == "done\n"


@contextmanager
def running_worker(bullmq: str, redis_port: int, double: str) -> Iterator[Worker]:
    """Run a worker of *bullmq*, a key of `VERSIONS`; skip the test where Node or its packages are missing."""
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    line = [node, str(SOURCE / "worker.cjs"), bullmq, str(redis_port), double]
    with subprocess.Popen(
        die_with_parent.wrap(line), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_packages()
    ) as process:
        try:
            assert _pipes(process)[1].readline() == "ready\n"
            yield Worker(process)
        finally:
            process.kill()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin
    assert process.stdout
    return process.stdin, process.stdout


def _packages() -> Path:
    """Return a folder with the packages of the lock file; they are fetched the first time."""
    lock = SOURCE / "package-lock.json"
    folder = PROJECT / ".cache" / f"bullmq-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("npm is not installed")
    folder.parent.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix="bullmq-"))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, made)
        fetch = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        fetched = subprocess.run(fetch, cwd=made, capture_output=True, text=True, timeout=240, check=False)
        if fetched.returncode:
            pytest.skip(f"npm cannot fetch bullmq: {fetched.stderr.strip().splitlines()[-1:]}")
        if not folder.exists():
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
