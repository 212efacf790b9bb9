"""What a database that fails, hangs or refuses does to a search: little, once, and it is said once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator

import asyncpg
import pytest
from postgres_server import Cluster, ImmichDatabase, running_postgres, without_zhparser

from immich_triton.web.database import Database, DatabaseFault


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> ImmichDatabase:
    return without_zhparser(postgres)


@pytest.fixture
def stopped() -> Iterator[tuple[Cluster, ImmichDatabase]]:
    """Give a server of one's own, to be stopped."""
    with running_postgres() as cluster:
        yield cluster, without_zhparser(cluster)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://immich_triton:geheim@/immich?host=/nowhere",
        "postgresql://immich_triton:geheim@127.0.0.1:1/immich",
        "postgresql://immich_triton:geheim@:port/immich",
    ],
)
async def test_a_database_that_is_not_there_is_left_alone_and_said_once(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(url, 1.0)
    for _ in range(3):
        with pytest.raises(DatabaseFault):
            await database.fetch("SELECT 1", within=5)
    (line,) = warnings(caplog)
    assert "is not asked for 30 seconds" in line
    assert "geheim" not in caplog.text


async def test_a_database_that_hangs_takes_no_longer_than_it_may(
    stopped: tuple[Cluster, ImmichDatabase], caplog: pytest.LogCaptureFixture
) -> None:
    cluster, tables = stopped
    database = Database(tables.url, 60.0)
    assert (await database.offers(within=10)).owners
    (backend,) = tables.run("SELECT pid FROM pg_stat_activity WHERE application_name = 'immich-triton'")
    for process in (backend["pid"], cluster.process.pid):  # what cancels a statement is answered by the parent
        os.kill(process, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await database.fetch("SELECT 1", within=0.3)
        assert time.monotonic() - began < 5
    finally:
        for process in (cluster.process.pid, backend["pid"]):
            os.kill(process, signal.SIGCONT)
        database.close()
    with pytest.raises(DatabaseFault, match="failed lately"):
        await database.fetch("SELECT 1", within=5)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(("within", "fault"), [(0.2, False), (0.001, True)])
async def test_a_time_out_that_is_not_the_databases_is_not_held_against_it(
    database: ImmichDatabase, within: float, fault: bool, caplog: pytest.LogCaptureFixture
) -> None:
    patient = Database(database.url, 60.0)
    with pytest.raises(TimeoutError):
        await patient.fetch("SELECT pg_sleep(30)", within=within, fault=fault)
    assert [dict(row) for row in await patient.fetch("SELECT 1 AS one", within=20)] == [{"one": 1}]
    assert warnings(caplog) == []
    patient.close()


async def test_a_query_that_the_database_does_not_understand_is_no_fault_of_others(database: ImmichDatabase) -> None:
    patient = Database(database.url, 60.0)
    with pytest.raises(DatabaseFault, match="InvalidRegularExpressionError"):
        await patient.fetch("SELECT 'text' ~ $1", "[", within=20)
    assert len(await patient.fetch("SELECT 1", within=20)) == 1
    patient.close()


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(database: ImmichDatabase) -> None:
    slow = Database(database.url, 0.2)
    with pytest.raises(DatabaseFault, match="QueryCanceledError"):
        await slow.fetch("SELECT pg_sleep(30)", within=20)
    slow.close()


async def test_many_searches_share_four_connections(database: ImmichDatabase) -> None:
    shared = Database(database.url, 5.0)
    rows = await asyncio.gather(
        *(shared.fetch("SELECT pg_backend_pid() AS pid, pg_sleep(0.02)", within=20) for _ in range(40))
    )
    assert len({row["pid"] for (row,) in rows}) <= 4
    shared.close()


async def test_a_role_that_may_not_read_is_a_fault_that_says_what_to_run(
    postgres: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    tables = postgres.database()
    if not postgres.run("postgres", "SELECT FROM pg_roles WHERE rolname = 'stranger'"):
        postgres.run("postgres", "CREATE ROLE stranger LOGIN")
    database = Database(postgres.url(tables.name, "stranger"), 1.0)
    with pytest.raises(DatabaseFault, match="may not read asset_ocr"):
        await database.offers(within=5)
    assert "deploy/sql/install.sql" in caplog.text
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM asset_ocr",
        "UPDATE asset_ocr SET text = ''",
        'INSERT INTO asset ("ownerId") VALUES (gen_random_uuid())',
        'SELECT "originalPath" FROM asset',
        "SELECT * FROM asset",
        "SELECT text FROM ocr_search",
        "SELECT * FROM users_and_their_passwords",
        "CREATE TABLE public.own (id int)",
        "CREATE TABLE immich_triton.own (id int)",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_the_role_may_read_lines_and_owners_and_nothing_else(database: ImmichDatabase, statement: str) -> None:
    database.run("CREATE TABLE IF NOT EXISTS users_and_their_passwords (id int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        database.run(f"SET TRANSACTION READ WRITE; {statement}", role="immich_triton")
