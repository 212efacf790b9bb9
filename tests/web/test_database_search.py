"""What a real PostgreSQL finds in the text of photos, by the search of the site; with and without zhparser."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import pytest
from immich_photos import photo_id
from postgres_server import Cluster, ImmichDatabase, with_zhparser

from immich_triton.web.database import Database
from immich_triton.web.patience import Patience
from immich_triton.web.relevance import by_database, chinese, variants
from immich_triton.web.relevance.chinese import Chinese
from immich_triton.web.relevance.score import GOOD

ME = "00000000-0000-4000-8000-00000000aaaa"
OTHER = "00000000-0000-4000-8000-00000000bbbb"


@pytest.fixture(scope="module")
def full() -> Chinese:
    pytest.importorskip("rjieba")
    pytest.importorskip("opencc")
    return chinese.load()


@pytest.fixture(scope="module")
def filled(installed: ImmichDatabase) -> ImmichDatabase:
    """Give both levels, each with the same photos."""
    texts: dict[int, Sequence[str]] = {
        1: ["川味小馆", "宫保鸡丁 38元", "麻婆豆腐 22元"],
        2: ["停水通知", "尊敬的业主：因管道检修"],
        3: ["臺北車站", "月臺 4A 往 高雄 Kaohsiung"],
        4: ["台北车站"],
        5: ["收银小票", "合计 ¥76.90", "100% 纯棉 a_b"],
        6: ["请勿吸烟 No Smoking", "停水"],
        7: ["ＥＸＩＴ 出口", "停 水"],
        8: ["收银小票", "合 计", "2025-06-10"],
    }
    installed.add_all((photo_id(number), ME, lines, ()) for number, lines in texts.items())
    installed.add(photo_id(9), ME, [], hidden=["宫保鸡丁"])
    return installed


@pytest.fixture(scope="module")
def with_index(postgres: Cluster) -> ImmichDatabase:
    return with_zhparser(postgres)


@pytest.fixture
async def opened(filled: ImmichDatabase) -> AsyncIterator[Database]:
    database = Database(filled.url, 5.0)
    yield database
    database.close()


def search(database: Database, query: str, by: Chinese, seconds: float = 10.0) -> by_database.Search:
    return by_database.Search(database, query, by, Patience(seconds))


async def found(database: Database, query: str, by: Chinese) -> set[int]:
    numbers = {photo_id(number): number for number in range(20)}
    return {numbers[photo] for photo in await search(database, query, by).find(ME)}


@pytest.mark.parametrize(
    ("query", "photos"),
    [
        # One and two characters, of which stock finds almost none.
        ("宫", {1}),
        ("水", {2, 6, 7}),
        ("计", {5, 8}),
        ("元", {1}),
        ("北", {3, 4}),
        ("合计", {5, 8}),
        # Both scripts, and widths, and case, and the gaps of a reader.
        ("台北", {3, 4}),
        ("臺北", {3, 4}),
        ("車站", {3, 4}),
        ("exit", {7}),
        ("停水", {2, 6, 7}),
        # Several words: all of them, on any line, in any order.
        ("通知 业主", {2}),
        ("停水 smoking", {6}),
        ("停水 宫保", set()),
        ("停水通知", {2}),
        # Of letters and digits, and what means something to LIKE, to a regular expression and to a text search.
        ("76.90", {5}),
        ("kaohsiung", {3}),
        ("100%", {5}),
        ("a_b", {5}),
        ("¥", {5}),
        ("%", {5}),
        ("a.b", set()),
        ("机场", set()),
        ("'; DROP TABLE asset_ocr; --", set()),
        ("停' | '水", {2, 6, 7}),  # both characters, like 停 水
        ("(", set()),
        ("[宫", {1}),
        ("\\", set()),
        ("!! &", set()),
    ],
)
async def test_what_a_query_finds(opened: Database, full: Chinese, query: str, photos: set[int]) -> None:
    assert await found(opened, query, full) == photos


async def test_ones_own_photos_come_first_then_the_most_relevant(opened: Database, full: Chinese) -> None:
    mine = await search(opened, "停水", full).find(ME)
    # All of a line, with a gap in it, half of a line.
    assert mine == [photo_id(6), photo_id(7), photo_id(2)]
    theirs = await search(opened, "停水", full).find(OTHER)
    assert set(theirs) == set(mine)  # none of them is this one's: Immich will say who may see them


async def test_no_more_than_two_hundred_and_others_never_crowd_out_ones_own(
    opened: Database, filled: ImmichDatabase, full: Chinese
) -> None:
    filled.add_all((photo_id(number), OTHER, ["会议室"], ()) for number in range(1000, 1250))
    filled.add(photo_id(1300), ME, ["三楼会议室请保持安静"])
    assert (await search(opened, "会议", full).find(ME))[0] == photo_id(1300)
    photos = await search(opened, "会议", full).find(None)
    assert len(photos) == len(set(photos)) == by_database.MOST
    assert photo_id(1300) not in photos


async def test_any_query_is_understood(opened: Database, full: Chinese) -> None:
    chance = random.Random(7)  # noqa: S311 - the same queries each time
    alphabet = [*"停水宫台臺⼲々〇한カabZ９％0 　\n\t\0\\'\"()[]{}|&!*:.^$?+-_%~/<>;,@#=`é𠀀🙂\u200b\u0301\ufeff"]
    for _ in range(200):
        query = "".join(chance.choices(alphabet, k=chance.randint(1, 12)))
        wanted = search(opened, query, full)
        await wanted.scores(await wanted.find(ME))


async def test_scores_are_those_of_the_text_and_none_for_photos_without(opened: Database, full: Chinese) -> None:
    asked = [photo_id(number) for number in (1, 2, 6, 8, 9, 99)]
    scores = await search(opened, "停水", full).scores(asked)
    assert set(scores) == {photo_id(number) for number in (1, 2, 6, 8)}
    assert scores[photo_id(6)] > scores[photo_id(2)] >= GOOD > scores[photo_id(1)] == 0
    folded = await search(opened, "台北車站", full).scores([photo_id(3), photo_id(4)])
    assert all(score >= GOOD for score in folded.values())


async def test_the_index_finds_what_looking_at_every_line_finds(with_index: ImmichDatabase, full: Chinese) -> None:
    chance = random.Random(11)  # noqa: S311 - the same lines each time
    alphabet = "停水通知宫保鸡丁合计台臺北车車站一二三十年月日元大小中国人民超市购物小票的了是有限公司物业管理"
    lines = ["".join(chance.choices(alphabet, k=chance.randint(1, 12))) for _ in range(1500)]
    lines = [line if chance.random() < 0.7 else f"{line}{chance.randint(1, 3000)} No {line[0]}" for line in lines]
    with_index.add_all((photo_id(2000 + at), ME, [line], ()) for at, line in enumerate(lines))
    pieces = {line[at : at + size] for line in lines[:200] for size in (1, 2, 3) for at in (0, 2)}
    queries = [piece for piece in pieces if piece and set(piece) <= set(alphabet)]
    assert len(queries) > 300
    patterns = {query: variants.pattern(full.fold(query), full.variants) for query in queries}
    words = {query: by_database.index_query(full.fold(query), full.variants) for query in queries}
    counted = with_index.run(
        """
        WITH line AS MATERIALIZED (SELECT text, immich_triton.words(text) AS words FROM asset_ocr WHERE "isVisible")
        SELECT query, count(*) AS every, count(*) FILTER (WHERE line.words @@ wanted.words::tsquery) AS by_index
        FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted(query, pattern, words) JOIN line ON text ~ pattern
        GROUP BY query
        """,
        queries,
        [*patterns.values()],
        [*words.values()],
    )
    assert {row["query"] for row in counted} == set(queries)
    assert [row for row in counted if row["every"] != row["by_index"]] == []


async def test_the_index_is_used(with_index: ImmichDatabase, full: Chinese) -> None:
    with_index.add_all((photo_id(5000 + at), ME, [f"第{at}号"] * 3, ()) for at in range(3000))
    with_index.run("ANALYZE asset_ocr")
    words = by_database.index_query("宫", full.variants)
    statement = by_database.FIND[by_database.How(by_index=True, owners=True, several=False)]
    parameters = ("宫", ["宫"], [1], [True], words, ME, "%")
    plan = with_index.run(f"EXPLAIN {statement}", *parameters, role="immich_triton")
    assert "immich_triton_asset_ocr_words" in "\n".join(row["QUERY PLAN"] for row in plan)
