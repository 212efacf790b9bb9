"""Relevance and further hits from Immich's PostgreSQL: the lines of ``asset_ocr`` that can be seen.

They are the truth: ``ocr_search``, which Immich itself searches, is emptied by "Refresh thumbnails" and broken by
cropping, has no single characters, and no other script. Everything from outside is a parameter of a constant statement.

The role reads the text of all users, so an id from here is only a question to Immich whether this caller may see it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from immich_triton.web.relevance import variants
from immich_triton.web.relevance.chinese import IDEOGRAPHS, Span
from immich_triton.web.relevance.score import RUN, Wanted, readable

if TYPE_CHECKING:
    from immich_triton.web.database import Database
    from immich_triton.web.relevance.chinese import Chinese

MOST: Final = 200
"""Photos that are taken from the database for one search, the most relevant; one's own before others'."""

COVER: Final = 0.1
"""What the cover density of PostgreSQL's own ranking adds to a score at most: enough to order what is equal else."""

_BY_INDEX: Final = {False: "", True: "AND immich_triton.words(text) @@ $5::text::tsquery"}
_OWNER: Final = {False: "", True: 'LEFT JOIN public.asset ON asset.id = photo."assetId"'}
_OWN_FIRST: Final = {False: "", True: '(asset."ownerId" = $6::text::uuid) DESC NULLS LAST,'}

FIND: Final = {
    (full_text, owners): f"""
WITH known AS (
    SELECT $5::text AS words, $6::text AS caller  -- so that both have a type where they are not used
), line AS MATERIALIZED (
    SELECT "assetId", text FROM public.asset_ocr WHERE "isVisible" {_BY_INDEX[full_text]} AND text ~ $1
), hit AS (
    SELECT "assetId", wanted.word, wanted.required, max(wanted.length / length(line.text)::float8) AS share
    FROM line JOIN unnest($2::text[], $3::int[], $4::bool[]) WITH ORDINALITY AS wanted(pattern, length, required, word)
      ON line.text ~ wanted.pattern
    GROUP BY "assetId", wanted.word, wanted.required
), photo AS (
    SELECT "assetId", sum(share) AS share FROM hit GROUP BY "assetId"
    HAVING count(*) FILTER (WHERE required) = (SELECT count(*) FROM unnest($4::bool[]) AS word(required) WHERE required)
)
SELECT photo."assetId"::text AS photo FROM photo {_OWNER[owners]}
ORDER BY {_OWN_FIRST[owners]} share DESC, photo."assetId" LIMIT {MOST}
"""  # noqa: S608 - made of constants
    for full_text in (False, True)
    for owners in (False, True)
}
"""Photos with every word of a query, by (full_text, owners).

$1 finds a line with any of the words. $2 to $4 are the words: pattern, characters, and whether a photo must have it.
$5 is the query for the index, $6 who asks.
"""

LINES: Final = """
SELECT "assetId"::text AS photo, string_agg(text, E'\\n' ORDER BY y1, x1) AS text
FROM public.asset_ocr WHERE "isVisible" AND "assetId" = ANY($1::text[]::uuid[]) GROUP BY "assetId"
"""

COVERED: Final = f"""
WITH wanted AS (
    SELECT string_agg('(' || query::text || ')', ' | ')::tsquery AS query
    FROM (
        SELECT plainto_tsquery('immich_triton.chinese'::regconfig, spelling) AS query
        FROM unnest($2::text[]) AS spelling
    ) AS each WHERE numnode(query) > 0
)
SELECT photo, text, (SELECT ts_rank_cd(to_tsvector('immich_triton.chinese'::regconfig, text), query, 32) FROM wanted)
    AS cover
FROM ({LINES}) AS photo
"""  # noqa: S608 - made of constants

CUT: Final = """
SELECT run, token FROM unnest($1::text[]) AS run,
    ts_parse((SELECT cfgparser FROM pg_ts_config WHERE oid = 'immich_triton.chinese'::regconfig), run)
    WITH ORDINALITY AS part(kind, token, place)
ORDER BY run, place
"""


class Hits(NamedTuple):
    """Photos that the database found, the best first, and the scores of these and of those that Immich found."""

    photos: list[str]
    scores: Mapping[str, float]


class Search:
    """One query, asked of the database. All methods raise what `Database.fetch` raises; *until* is a monotonic time."""

    def __init__(self, database: Database, query: str, chinese: Chinese, until: float) -> None:
        self._database = database
        self._query = query
        self._chinese = chinese
        self._until = until
        self._wanted: Wanted | None = None

    @property
    def _left(self) -> float:
        return max(self._until - time.monotonic(), 0.001)

    async def find(self, owner: str | None) -> list[str]:
        """Return at most `MOST` photos that have every word of the query; those of *owner* before others."""
        offers, wanted = await self._database.offers(within=self._left), await self._words()
        words = list(dict.fromkeys(wanted.words)) or [wanted.whole]
        if not words[0]:
            return []
        also = [wanted.whole] if wanted.whole not in words else []
        patterns = [variants.pattern(word, self._chinese.variants) for word in (*words, *also)]
        index = index_query(words, self._chinese.variants) if offers.full_text else ""
        rows = await self._database.fetch(
            FIND[bool(index), offers.owners],
            "|".join(patterns[: len(words)]),
            patterns,
            [len(word) for word in (*words, *also)],
            [True] * len(words) + [False] * len(also),
            index or None,
            owner,
            within=self._left,
        )
        return [row["photo"] for row in rows]

    async def scores(self, photos: Iterable[str]) -> dict[str, float]:
        """Return the scores of those *photos* that have any text."""
        offers, wanted = await self._database.offers(within=self._left), await self._words()
        asked = list(photos)
        if offers.full_text:
            rows = await self._database.fetch(COVERED, asked, self._chinese.spellings(self._query), within=self._left)
        else:
            rows = await self._database.fetch(LINES, asked, within=self._left)
        return {
            row["photo"]: wanted.score(readable(row["text"], self._chinese)) + COVER * (row.get("cover") or 0.0)
            for row in rows
        }

    async def _words(self) -> Wanted:
        """Take the query apart: with zhparser where it is, so that its words are those of the index."""
        if self._wanted is None:
            chinese = self._chinese
            if (await self._database.offers(within=self._left)).full_text:
                cut = await self._cut(Wanted(self._query, chinese).whole)
                chinese = replace(chinese, words=lambda run: cut.get(run) or self._chinese.words(run))
            self._wanted = Wanted(self._query, chinese)
        return self._wanted

    async def _cut(self, query: str) -> dict[str, list[Span]]:
        runs = list(dict.fromkeys(RUN.findall(query)))
        cut: dict[str, list[Span]] = {run: [] for run in runs}
        for row in await self._database.fetch(CUT, runs, within=self._left) if runs else ():
            spans = cut[row["run"]]
            begin = spans[-1][1] if spans else 0
            spans.append((begin, begin + len(row["token"])))
        return cut


def index_query(words: Sequence[str], characters: Mapping[str, str]) -> str:
    """Return a query for the index that finds each line with any of *words*, or nothing when it cannot.

    The index has every ideograph by itself, so a word is all of its characters in any spelling; where it stands is
    looked at in the line. Words of letters and digits are cut at other places in a line than alone.
    """
    if not all(re.fullmatch(f"[{IDEOGRAPHS}]+", word) for word in words):
        return ""
    return " | ".join(
        "(" + " & ".join(f"({' | '.join(variants.spellings(one, characters))})" for one in word) + ")" for word in words
    )
