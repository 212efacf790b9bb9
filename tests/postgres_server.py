"""A real PostgreSQL with the tables of Immich that hold the text of photos, for a test or an evaluation."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
from embedded_triton import eventually
from immich_tables import SCHEMA, searched

from immich_triton.core.paths import PROJECT

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


NO_ZHPARSER: Final = (
    "CREATE EXTENSION zhparser does not work here: it is in no package of Debian's; see deploy/sql/README.md"
)
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


def _apart[T](work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread of its own: the caller may have an event loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


@contextmanager
def running_postgres() -> Iterator[Cluster]:
    """Make a cluster in a new folder and run it; everything goes with the block. It does not wait for the disk.

    PostgreSQL refuses to run as root: then it runs as Debian's user ``postgres``. Skips the test without programs.
    """
    found = programs()
    if found is None:
        pytest.skip(MISSING)
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
            process.send_signal(signal.SIGQUIT)  # at once: nothing has to be kept
            process.wait(60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        log.unlink(missing_ok=True)


def _wait_until_ready(cluster: Cluster, log: Path) -> None:
    def ready() -> bool:
        try:
            cluster.run("postgres", "SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return cluster.process.poll() is not None
        return True

    assert eventually(ready, 60), log.read_text(errors="replace")
    assert cluster.process.poll() is None, log.read_text(errors="replace")


def without_zhparser(postgres: Cluster) -> ImmichDatabase:
    """Return a new database as install.sql leaves it on a server that has no zhparser."""
    database = postgres.database()
    database.script("install.sql")
    database.run("DROP INDEX IF EXISTS immich_triton_asset_ocr_words")
    return database


def with_zhparser(postgres: Cluster) -> ImmichDatabase:
    """Return a new database with the full-text search, or skip the test and say why."""
    if not postgres.has_zhparser:
        pytest.skip(NO_ZHPARSER)
    database = postgres.database()
    database.script("install.sql")
    return database
