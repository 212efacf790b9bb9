"""The databases of the tests: Immich's tables on a real PostgreSQL, with and without zhparser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from search_eval.postgres import MISSING, Cluster, ImmichDatabase, programs
from search_eval.postgres import running_postgres as _running_postgres

__all__ = ["Cluster", "ImmichDatabase", "programs", "running_postgres", "with_zhparser", "without_zhparser"]

NO_ZHPARSER: Final = (
    "CREATE EXTENSION zhparser does not work here: it is in no package of Debian's; see deploy/sql/README.md"
)


@contextmanager
def running_postgres() -> Iterator[Cluster]:
    """Run a new cluster, or skip the test and say what installs it."""
    if programs() is None:
        pytest.skip(MISSING)
    with _running_postgres() as cluster:
        yield cluster


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
