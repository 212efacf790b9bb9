"""A real PostgreSQL of one's own, with the tables of Immich that hold the text of photos."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import asyncpg

from immich_triton.core.paths import PROJECT
from search_eval.immich_tables import SCHEMA, searched

SQL: Final = PROJECT / "deploy" / "sql"
DEBIAN: Final = Path("/usr/lib/postgresql")
_numbers = itertools.count(1)


@cache
def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest of Debian's or that on the path; None without any."""
    versions = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


MISSING: Final = "PostgreSQL is not installed; Debian and Ubuntu: apt-get install postgresql postgresql-contrib"


@dataclass(frozen=True)
class Cluster:
    """A running server; it listens on a socket in *directory* only, and asks nobody for a password."""

    directory: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str, role: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://{role}@/{database}?host={self.directory}"

    def run(self, database: str, statement: str, *parameters: Any, role: str = "postgres") -> list[Mapping[str, Any]]:
        """Run a statement and return its rows."""

        async def run() -> list[Mapping[str, Any]]:
            connection = await asyncpg.connect(self.url(database, role), timeout=30)
            try:
                if parameters:
                    return list(await connection.fetch(statement, *parameters))
                if statement.lstrip().upper().startswith(("SELECT", "WITH", "EXPLAIN")):
                    return list(await connection.fetch(statement))
                await connection.execute(statement)
                return []
            finally:
                await connection.close()

        return _apart(run)

    @property
    def has_zhparser(self) -> bool:
        """Whether ``CREATE EXTENSION zhparser`` works here."""
        rows = self.run("postgres", "SELECT FROM pg_available_extensions WHERE name = 'zhparser'")
        return bool(rows)

    def database(self) -> ImmichDatabase:
        """Make a new database with Immich's tables, empty."""
        name = f"immich_{next(_numbers)}"
        self.run("postgres", f"CREATE DATABASE {name} TEMPLATE template0")
        database = ImmichDatabase(self, name)
        database.run(SCHEMA)
        return database


@dataclass(frozen=True)
class ImmichDatabase:
    """One database of a cluster."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        """Return its address for our read-only role."""
        return self.cluster.url(self.name, "immich_triton")

    def run(self, statement: str, *parameters: Any, role: str = "postgres") -> list[Mapping[str, Any]]:
        """Run a statement and return its rows."""
        return self.cluster.run(self.name, statement, *parameters, role=role)

    def script(self, name: str) -> None:
        """Run a script of deploy/sql."""
        self.run((SQL / name).read_text(encoding="utf-8"))

    def add(self, photo: str, owner: str, lines: Sequence[str], hidden: Sequence[str] = ()) -> None:
        """Put a photo in with its text, as Immich does after reading it."""
        self.add_all([(photo, owner, lines, hidden)])

    def add_all(self, photos: Iterable[tuple[str, str, Sequence[str], Sequence[str]]]) -> None:
        """Put photos in: id, owner, lines, hidden lines."""

        async def add() -> None:
            connection = await asyncpg.connect(self.cluster.url(self.name), timeout=30)
            try:
                known = list(photos)
                await connection.executemany(
                    'INSERT INTO asset (id, "ownerId") VALUES ($1, $2)',
                    [(photo, owner) for photo, owner, _, _ in known],
                )
                await connection.executemany(
                    'INSERT INTO asset_ocr ("assetId", y1, text, "isVisible") VALUES ($1, $2, $3, $4)',
                    [
                        (photo, at / 100, line, visible)
                        for photo, _, lines, hidden in known
                        for visible, group in ((True, lines), (False, hidden))
                        for at, line in enumerate(group)
                    ],
                )
                await connection.executemany(
                    "INSERT INTO ocr_search VALUES ($1, $2)",
                    [(photo, searched(lines)) for photo, _, lines, _ in known],
                )
            finally:
                await connection.close()

        _apart(add)

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Let everybody who reads *table* wait until the block ends."""
        psql = programs()
        assert psql  # noqa: S101 - it runs
        command = [str(psql / "psql"), "-q", "-h", str(self.cluster.directory), "-U", "postgres", self.name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin  # noqa: S101 - narrows types
            assert client.stdout  # noqa: S101
            client.stdin.write(f"BEGIN; LOCK TABLE {table};\n\\echo locked\n")
            client.stdin.flush()
            client.stdout.readline()
            yield
            client.stdin.close()

    def copy(self, times: int, owner: str) -> None:
        """Put all photos in *times* more, as somebody else's, with another number at the end of each line."""
        columns = "id AS old, gen_random_uuid() AS new, copy"
        self.run(f"CREATE TABLE copied AS SELECT {columns} FROM asset, generate_series(1, {times:d}) AS copy")  # noqa: S608
        self.run('INSERT INTO asset (id, "ownerId") SELECT new, $1::uuid FROM copied', owner)
        for table in ("asset_ocr", "ocr_search"):
            source = f"(SELECT new, text || ' ' || copy FROM {table} JOIN copied ON old = \"assetId\")"  # noqa: S608
            self.run(f'INSERT INTO {table} ("assetId", text) {source}')
        self.run("DROP TABLE copied; ANALYZE")


def _apart[T](work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread of its own: the caller may have an event loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


@contextmanager
def running_postgres() -> Iterator[Cluster]:
    """Make a cluster in a new folder and run it; everything goes with the block. It does not wait for the disk.

    PostgreSQL refuses to run as root: then it runs as Debian's user ``postgres``. Raises LookupError without programs.
    """
    found = programs()
    if found is None:
        raise LookupError(MISSING)
    directory = Path(tempfile.mkdtemp(prefix="immich-pg-"))
    as_user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT"]
    log = directory.with_suffix(".log")
    try:
        with log.open("wb") as output:
            new = [*as_user, str(found / "initdb"), "-D", str(directory / "data"), "-U", "postgres", "-A", "trust"]
            new += ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
            subprocess.run(new, stdout=output, stderr=output, check=True, timeout=120, cwd="/")
            settings = {"listen_addresses": "", "unix_socket_directories": directory, "fsync": "off"}
            settings |= {"synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
            command = [*as_user, str(found / "postgres"), "-D", str(directory / "data")]
            for name, value in settings.items():
                command += ["-c", f"{name}={value}"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/")
        cluster = Cluster(directory, process)
        try:
            _wait_until_ready(cluster, log)
            yield cluster
        finally:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)  # without waiting for clients
            process.wait(60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        log.unlink(missing_ok=True)


def _wait_until_ready(cluster: Cluster, log: Path) -> None:
    deadline = time.monotonic() + 60
    while cluster.process.poll() is None and time.monotonic() < deadline:
        try:
            cluster.run("postgres", "SELECT 1")
        except (OSError, asyncpg.PostgresError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")
