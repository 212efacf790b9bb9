"""deploy/sql on a real PostgreSQL: what it makes, that it can be run again, what Immich's changes leave of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from immich_photos import photo_id
from postgres_server import Cluster, ImmichDatabase, programs, with_zhparser, without_zhparser

from immich_triton.web.database import OFFERS

ME = "00000000-0000-4000-8000-00000000aaaa"


def offers(database: ImmichDatabase) -> Mapping[str, Any]:
    (row,) = database.run(OFFERS, role="immich_triton")
    return dict(row)


def everything(database: ImmichDatabase) -> set[str]:
    """Return what a dump of the database holds, without what is known to come and go by itself."""
    program = programs()
    assert program
    dump = subprocess.run(
        [program / "pg_dump", "-h", database.cluster.directory, "-U", "postgres", "--schema-only", database.name],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
    return {line for line in dump.splitlines() if line and not line.startswith(("--", "\\"))}


@pytest.mark.parametrize("level", [without_zhparser, with_zhparser])
def test_it_may_be_run_again_and_taken_back_without_a_trace(postgres: Cluster, level: Any) -> None:
    before = everything(postgres.database())
    database = level(postgres)
    database.add(photo_id(1), ME, ["停水通知"])
    for _ in range(2):
        database.script("install.sql")
    assert offers(database) == {"lines": True, "owners": True, "full_text": postgres.has_zhparser}
    for _ in range(2):
        database.script("uninstall.sql")
    assert everything(database) == before
    assert database.run("SELECT text FROM asset_ocr")[0]["text"] == "停水通知"


def test_before_immich_has_its_tables_it_says_so_and_leaves_nothing(postgres: Cluster) -> None:
    name = postgres.database().name
    postgres.run("postgres", f"DROP DATABASE {name}")
    postgres.run("postgres", f"CREATE DATABASE {name} TEMPLATE template0")
    empty = ImmichDatabase(postgres, name)
    with pytest.raises(Exception, match="asset_ocr"):
        empty.script("install.sql")
    assert not empty.run("SELECT FROM pg_namespace WHERE nspname = 'immich_triton'")


def test_changes_of_the_table_leave_the_index_and_a_new_table_is_noticed(postgres: Cluster) -> None:
    database = with_zhparser(postgres)
    database.add(photo_id(1), ME, ["停水通知"])
    # As Immich's migrations do: 3.1.0 has added a column, an index and a trigger to this very table.
    database.run('ALTER TABLE asset_ocr ADD COLUMN "updateId" uuid NOT NULL DEFAULT gen_random_uuid()')
    database.run('CREATE INDEX ON asset_ocr ("updateId")')
    database.run('ALTER TABLE asset_ocr RENAME COLUMN "textScore" TO score')
    database.run("ALTER TABLE asset_ocr ALTER COLUMN text TYPE varchar")
    assert offers(database)["full_text"]
    assert database.run("SELECT FROM asset_ocr WHERE immich_triton.words(text) @@ '水'::tsquery")
    # A table that is made anew has neither index nor grants: one level lower, until install.sql has run again.
    database.run("ALTER TABLE asset_ocr RENAME TO old; CREATE TABLE asset_ocr (LIKE old); DROP TABLE old")
    assert offers(database) == {"lines": False, "owners": True, "full_text": False}
    database.script("install.sql")
    assert offers(database)["full_text"]


def test_immichs_own_user_goes_on_writing_lines(postgres: Cluster) -> None:
    """Immich's user need not be the superuser who ran the script; the index works in its sessions too."""
    database = with_zhparser(postgres)
    if not postgres.run("postgres", "SELECT FROM pg_roles WHERE rolname = 'immich'"):
        postgres.run("postgres", "CREATE ROLE immich LOGIN")
    for table in ("asset", "asset_ocr", "ocr_search"):
        database.run(f"ALTER TABLE {table} OWNER TO immich")
    database.run("INSERT INTO asset VALUES ($1, $2)", photo_id(1), ME, role="immich")
    database.run("ALTER ROLE immich SET search_path = ''")  # what ours needs must not hang on it
    database.run(
        'INSERT INTO public.asset_ocr ("assetId", text) VALUES ($1, $2)', photo_id(1), "停水通知", role="immich"
    )
    assert database.run("SELECT FROM asset_ocr WHERE immich_triton.words(text) @@ '通'::tsquery")
    database.run("DELETE FROM public.asset_ocr", role="immich")


def test_a_dump_can_be_restored(postgres: Cluster) -> None:
    database, copy = with_zhparser(postgres), postgres.database()
    database.add(photo_id(1), ME, ["停水通知"])
    postgres.run("postgres", f"DROP DATABASE {copy.name}")
    postgres.run("postgres", f"CREATE DATABASE {copy.name} TEMPLATE template0")
    program = programs()
    assert program
    host = ["-h", str(postgres.directory), "-U", "postgres"]
    dump = subprocess.run([program / "pg_dump", *host, database.name], capture_output=True, check=True, timeout=60)
    restored = subprocess.run(
        [program / "psql", *host, "-v", "ON_ERROR_STOP=1", "-q", copy.name],
        input=dump.stdout,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert restored.returncode == 0, restored.stderr.decode()
    assert offers(copy)["full_text"]
    assert copy.run("SELECT FROM asset_ocr WHERE immich_triton.words(text) @@ '水'::tsquery")
