"""Relevance and further hits from Immich's PostgreSQL: the lines of ``asset_ocr`` that can be seen.

They are the truth: ``ocr_search``, which Immich itself searches, is emptied by "Refresh thumbnails" and broken by
cropping, has no single characters, and no other script. Everything from outside is a parameter of a constant statement.

The role reads the text of all users, so an id from here is only a question to Immich whether this caller may see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

from immich_triton.web.relevance import variants
from immich_triton.web.relevance.chinese import Span
from immich_triton.web.relevance.score import RUN, Wanted, readable

if TYPE_CHECKING:
    from immich_triton.web.database import Database
    from immich_triton.web.patience import Patience
    from immich_triton.web.relevance.chinese import Chinese

MOST: Final = 200
"""Photos that are taken from the database for one search, the most relevant; one's own before others'."""

FINDING: Final = 0.7
"""Share of the time that is left in which photos may be found; their text has to be read and scored in the rest."""

COVER: Final = 0.1
"""What the cover density of PostgreSQL's own ranking adds to a score at most: enough to order what is equal else."""

_BY_INDEX: Final = {False: "", True: "AND immich_triton.words(text) @@ $5::text::tsquery"}
_OWNER: Final = {False: "", True: 'LEFT JOIN public.asset ON asset.id = photo."assetId"'}
_OWN_FIRST: Final = {False: "", True: '(asset."ownerId" = $6::text::uuid) DESC NULLS LAST,'}

_ONE_WORD: Final = """
photo AS MATERIALIZED (
    SELECT "assetId", max(($3::int[])[1] / length(text)::float8) AS share
    FROM public.asset_ocr WHERE {line} GROUP BY "assetId"
)
"""
_WORDS: Final = """
candidate AS MATERIALIZED (
    SELECT DISTINCT "assetId" FROM public.asset_ocr WHERE {line}
), line AS MATERIALIZED (  -- by itself, so that no other line is looked at for all of the words
    SELECT "assetId", text FROM candidate JOIN public.asset_ocr USING ("assetId") WHERE "isVisible"
), hit AS (
    SELECT "assetId", wanted.word, wanted.required, max(wanted.length / length(line.text)::float8) AS share
    FROM line JOIN unnest($2::text[], $3::int[], $4::bool[]) WITH ORDINALITY AS wanted(pattern, length, required, word)
      ON line.text ~ wanted.pattern
    GROUP BY "assetId", wanted.word, wanted.required
), photo AS (
    SELECT "assetId", sum(share) AS share FROM hit GROUP BY "assetId"
    HAVING count(*) FILTER (WHERE required) = (SELECT count(*) FROM unnest($4::bool[]) AS word(required) WHERE required)
)
"""


class How(NamedTuple):
    """How photos are found: *by_index* or by looking at each line; *owners* may be read; one word, or *several*."""

    by_index: bool
    owners: bool
    several: bool


def _find(how: How) -> str:
    line = f'"isVisible" {_BY_INDEX[how.by_index]} AND text LIKE $7 AND text ~ $1'
    return f"""
WITH known AS (  -- so that each has a type where it is not used
    SELECT $2::text[] AS patterns, $4::bool[] AS required, $5::text AS words, $6::text AS caller
), {(_WORDS if how.several else _ONE_WORD).format(line=line)}
SELECT photo."assetId"::text AS photo FROM photo {_OWNER[how.owners]}
ORDER BY {_OWN_FIRST[how.owners]} share DESC, photo."assetId" LIMIT {MOST}
"""  # noqa: S608 - made of constants


FIND: Final = {how: _find(how) for how in map(How._make, product((False, True), repeat=3))}
"""Photos with every word of a query.

Every line is looked at for one word only, $1: that of which there will be least, the longest; $7 is the part of it that
`variants.like` knows, since LIKE takes a third of the time. $2 to $4 are all words: pattern, characters, and whether a
photo must have it. $5 is the query for the index, for the word of $1; $6 who asks.
"""

LINES: Final = """
SELECT "assetId"::text AS photo, string_agg(text, E'\\n' ORDER BY y1, x1) AS text
FROM public.asset_ocr WHERE "isVisible" AND "assetId" = ANY($1::text[]::uuid[]) GROUP BY "assetId"
"""

COVERED: Final = """
SELECT ts_rank_cd(immich_triton.words(text), plainto_tsquery('immich_triton.chinese'::regconfig, $2), 32) AS cover
FROM unnest($1::text[]) WITH ORDINALITY AS folded(text, place) ORDER BY place
"""
"""The cover density of each text; folded like the query, because zhparser's dictionary is a simplified one."""

_CJK: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]+")
"""What zhparser cuts into characters: no kana and no hangul."""

CUT: Final = """
SELECT run, token FROM unnest($1::text[]) AS run,
    ts_parse((SELECT cfgparser FROM pg_ts_config WHERE oid = 'immich_triton.chinese'::regconfig), run)
    WITH ORDINALITY AS part(kind, token, place)
ORDER BY run, place
"""


class Search:
    """One query, asked of the database. All methods raise what `Database.fetch` raises."""

    def __init__(self, database: Database, query: str, chinese: Chinese, patience: Patience) -> None:
        self._database = database
        self._query = query.replace("\0", " ")  # the one character that PostgreSQL has no text for
        self._chinese = chinese
        self._patience = patience
        self._wanted: Wanted | None = None

    async def find(self, owner: str | None) -> list[str]:
        """Return at most `MOST` photos that have every word of the query; those of *owner* before others.

        A time-out is no fault of the database: it has to look at every line where it has no index.
        """
        offers, wanted = await self._database.offers(within=self._patience), await self._words()
        words = list(dict.fromkeys(wanted.words)) or [wanted.whole]
        if not words[0]:
            return []
        also = [wanted.whole] if wanted.whole not in words else []
        patterns = {word: variants.pattern(word, self._chinese.variants) for word in (*words, *also)}
        indexed = [word for word in words if offers.full_text and _CJK.fullmatch(word)]
        first = max(indexed or words, key=len)
        rows = await self._database.fetch(
            FIND[How(bool(indexed), offers.owners, len(patterns) > 1)],
            patterns[first],
            [*patterns.values()],
            [*map(len, patterns)],
            [True] * len(words) + [False] * len(also),
            index_query(first, self._chinese.variants) if indexed else None,
            owner,
            variants.like(first, self._chinese.variants),
            within=self._patience,
            share=FINDING,
            fault=False,
        )
        return [row["photo"] for row in rows]

    async def scores(self, photos: Iterable[str]) -> dict[str, float]:
        """Return the scores of those *photos* that have any text."""
        if not (asked := list(photos)):
            return {}
        offers, wanted = await self._database.offers(within=self._patience), await self._words()
        rows = await self._database.fetch(LINES, asked, within=self._patience)
        texts = {row["photo"]: readable(row["text"], self._chinese) for row in rows}
        scores = {photo: wanted.score(text) for photo, text in texts.items()}
        if offers.full_text and texts:
            covers = await self._database.fetch(COVERED, [*texts.values()], wanted.whole, within=self._patience)
            for photo, row in zip(texts, covers, strict=True):
                scores[photo] += COVER * row["cover"]
        return scores

    async def _words(self) -> Wanted:
        """Take the query apart: with zhparser where it is, so that its words are those of the index."""
        if self._wanted is None:
            chinese = self._chinese
            if (await self._database.offers(within=self._patience)).full_text:
                cut = await self._cut(Wanted(self._query, chinese).whole)
                chinese = replace(chinese, words=lambda run: cut.get(run) or self._chinese.words(run))
            self._wanted = Wanted(self._query, chinese)
        return self._wanted

    async def _cut(self, query: str) -> dict[str, list[Span]]:
        runs = list(dict.fromkeys(RUN.findall(query)))
        cut: dict[str, list[Span]] = {run: [] for run in runs}
        for row in await self._database.fetch(CUT, runs, within=self._patience) if runs else ():
            spans = cut[row["run"]]
            begin = spans[-1][1] if spans else 0
            spans.append((begin, begin + len(row["token"])))
        return cut


def index_query(word: str, characters: Mapping[str, str]) -> str:
    """Return a query for the index that finds each line with a *word* of ideographs.

    The index has every ideograph by itself, so the word is all of its characters, in any spelling; whether they stand
    together is looked at in the line. Words of letters and digits are cut at other places in a line than alone.
    """
    return " & ".join(f"({' | '.join(variants.spellings(one, characters))})" for one in word)
