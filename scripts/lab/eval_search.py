"""Compare searches by the text in photos: Immich's own, ours without its database, and ours with it.

    .venv/bin/python scripts/lab/eval_search.py

Puts the texts of 200 photos into Immich's tables on a PostgreSQL of its own, asks 60 queries whose right answers are
known, and prints recall@10, MRR and how long a query took. The texts are taken as read: no picture is rendered, and
there is no search by picture in it. Without zhparser on this machine that column is missing.

    .venv/bin/python scripts/lab/eval_search.py --copies 157

The same with 31,400 further photos of somebody else, as large libraries have them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import asyncpg
from rich.console import Console
from rich.table import Table

from immich_triton.web.database import Database
from search_eval.photos import Photo, photos
from search_eval.postgres import Cluster, ImmichDatabase, running_postgres
from search_eval.queries import DEPTH, QUERIES, Query, recall, reciprocal_rank
from search_eval.systems import ME, PATIENCE, Ours, Stock, photo_id

ALL = "all"
Answers = Mapping[str, Mapping[str, list[int]]]
"""The numbers of the photos that each search found for each query, in order."""
Times = Mapping[str, Sequence[float]]
"""Seconds that each search took for each query."""

SOMEBODY = "00000000-0000-4000-8000-00000000bbbb"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when all searches were marked, 1 on an error."""
    options = parser().parse_args(arguments)
    known = photos()
    try:
        with running_postgres() as cluster:
            answers, seconds = asyncio.run(asked(cluster, known, options.copies))
    except LookupError as error:
        print(f"eval_search: {error}", file=sys.stderr)
        return 1
    marks = {name: marked(found, known) for name, found in answers.items()}
    if options.json:
        print(json.dumps(marks, ensure_ascii=False, indent=1))
        return 0
    console = Console()
    console.print(f"{len(known)} photos, {len(QUERIES)} queries; recall@{DEPTH} / MRR")
    console.print(table(marks, seconds))
    if options.mistakes:
        for name, found in answers.items():
            for query in QUERIES:
                if (
                    recall(found[query.text], query.right(known)) < 1
                    or reciprocal_rank(found[query.text], query.right(known)) < 1
                ):
                    console.print(
                        f"{name}: {query.text} → {found[query.text][:DEPTH]}, right {sorted(query.right(known))}"
                    )
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--json", action="store_true", help="print the figures as JSON")
    command.add_argument(
        "--copies", type=int, default=0, help="how often all photos are there a second time, as somebody else's"
    )
    command.add_argument("--mistakes", action="store_true", help="print each query that did not find all")
    return command


async def asked(cluster: Cluster, known: Sequence[Photo], copies: int) -> tuple[Answers, Times]:
    """Ask every search every query, once to warm up and once for the time."""
    numbers = {photo_id(photo.number): photo.number for photo in known}
    plain, full_text = filled(cluster, known, copies), filled(cluster, known, copies)
    plain.run("DROP INDEX IF EXISTS immich_triton_asset_ocr_words")
    connection = await asyncpg.connect(cluster.url(plain.name))
    stock = Stock(connection, numbers)
    searches: dict[str, Stock | Ours] = {"stock Immich": stock, "ours, no database": Ours(stock, None)}
    answers: dict[str, dict[str, list[int]]] = {}
    seconds: dict[str, list[float]] = {}
    with opened(plain) as database, opened(full_text) as with_zhparser:
        searches["ours, database"] = Ours(stock, database)
        if cluster.has_zhparser:
            searches["ours, zhparser"] = Ours(stock, with_zhparser)
        for name, search in searches.items():
            for query in QUERIES:
                answers.setdefault(name, {})[query.text] = await search.search(query.text)
                began = time.perf_counter()
                await search.search(query.text)
                seconds.setdefault(name, []).append(time.perf_counter() - began)
    await connection.close()
    return answers, seconds


def filled(cluster: Cluster, known: Sequence[Photo], copies: int) -> ImmichDatabase:
    """Return a new database with the texts of *known*, and what install.sql makes."""
    database = cluster.database()
    database.add_all((photo_id(photo.number), ME, photo.lines, ()) for photo in known)
    database.run(
        "UPDATE asset SET \"fileCreatedAt\" = now() - age * interval '1 day' "
        "FROM unnest($1::uuid[], $2::int[]) AS known(photo, age) WHERE id = photo",
        [photo_id(photo.number) for photo in known],
        [photo.age for photo in known],
    )
    lost = [photo_id(photo.number) for photo in known if photo.lost]
    database.run("UPDATE ocr_search SET text = '' WHERE \"assetId\" = ANY($1)", lost)
    if copies:
        database.copy(copies, SOMEBODY)
    database.script("install.sql")
    return database


@contextmanager
def opened(database: ImmichDatabase) -> Iterator[Database]:
    """Open a database as the site does."""
    site = Database(database.url, PATIENCE)
    try:
        yield site
    finally:
        site.close()


def marked(found: Mapping[str, list[int]], known: Sequence[Photo]) -> dict[str, tuple[float, float]]:
    """Return recall and MRR of one search, for each group of queries and for all."""
    groups: dict[str, list[Query]] = {}
    for query in QUERIES:
        groups.setdefault(query.group, []).append(query)
    groups[ALL] = list(QUERIES)
    return {
        group: (
            sum(recall(found[query.text], query.right(known)) for query in queries) / len(queries),
            sum(reciprocal_rank(found[query.text], query.right(known)) for query in queries) / len(queries),
        )
        for group, queries in groups.items()
    }


def table(marks: Mapping[str, Mapping[str, tuple[float, float]]], seconds: Times) -> Table:
    """Return one row for each group of queries, one column for each search, and how long a query took."""
    result = Table("queries", *marks, title=None)
    counts = {query.group: sum(other.group == query.group for other in QUERIES) for query in QUERIES} | {
        ALL: len(QUERIES)
    }
    for group, count in counts.items():
        cells = [f"{marks[name][group][0]:.3f} / {marks[name][group][1]:.3f}" for name in marks]
        result.add_row(f"{group} ({count})", *cells)
    quantiles = (statistics.quantiles(seconds[name], n=20) for name in marks)
    result.add_row("ms, median / 95 %", *(f"{1000 * parts[9]:.0f} / {1000 * parts[18]:.0f}" for parts in quantiles))
    return result


if __name__ == "__main__":
    sys.exit(main())
