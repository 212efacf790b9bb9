"""How a photo's text is scored: with words and both scripts where the packages are installed, and without them."""

from __future__ import annotations

import random
import re
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from immich_triton.web.relevance import chinese, variants
from immich_triton.web.relevance.chinese import Chinese, pairs
from immich_triton.web.relevance.score import GOOD, Wanted, readable

PLAIN = Chinese()


@pytest.fixture(scope="module")
def full() -> Chinese:
    pytest.importorskip("rjieba")
    pytest.importorskip("opencc")
    return chinese.load()


def score(query: str, *lines: str, by: Chinese = PLAIN) -> float:
    return Wanted(query, by).score(readable("\n".join(lines), by))


def cut(run: str, by: Chinese) -> list[str]:
    return [run[start:end] for start, end in by.words(run)]


def test_pairs_of_characters() -> None:
    assert cut("宫保鸡丁", PLAIN) == ["宫保", "保鸡", "鸡丁"]
    assert cut("元", PLAIN) == ["元"]
    assert pairs("合计") == [(0, 2)]


def test_the_score_by_hand() -> None:
    # Pairs: 停水 and 水通 and 通知 are wanted. "停水": 1/3 of the words, 2/4 together, 1/3 of the pairs.
    assert score("停水通知", "小区停水") == pytest.approx(0.5 / 3 + 0.3 / 2 + 0.2 / 3)
    # All there and together, once, on a line of 8: 0.5 + 0.3 + 0.2 + 0.05 · 4/8.
    assert score("停水通知", "本周停水通知各位") == pytest.approx(1.025)
    # Alone on its line, and three times: 1 + 0.05 · (1 - 1/3) + 0.05.
    assert score("停水通知", "停水通知", "停水通知 停水通知") == pytest.approx(1 + 0.1 / 3 + 0.05)
    assert score("停水通知", "今日特价") == 0


@pytest.mark.parametrize(
    ("query", "better", "worse"),
    [
        ("总计", ["总计 18.50"], ["计算总和"]),
        ("总计", ["总计"], ["本月水费总计如下所列"]),
        ("总计", ["总计 1", "总计 2", "总计 3"], ["总计 1"]),
        ("no smoking", ["No Smoking"], ["Smoking area", "no entry"]),
        ("停水 宫保", ["停水通知", "宫保鸡丁"], ["停水通知"]),
        ("exit", ["EXIT"], ["flexitime"]),
        ("2025年", ["2025年11月"], ["2025-06-10"]),
        ("宫保鸡丁", ["宫保鸡丁 38元"], ["宫保鸡T"]),
        ("停水通知", ["停水", "通知"], ["停电", "通知"]),
        ("ＡＢＣ", ["abc"], ["xyz"]),
    ],
)
def test_which_text_fits_better(query: str, better: list[str], worse: list[str], full: Chinese) -> None:
    for by in (PLAIN, full):
        assert score(query, *better, by=by) > score(query, *worse, by=by)
        assert score(query, *better, by=by) >= GOOD


def test_half_of_the_words_is_no_hit(full: Chinese) -> None:
    assert score("停水 宫保", "停水通知", by=full) < GOOD
    assert score("a dog on the beach", "beach a", by=full) < GOOD


def test_a_misread_character_is_forgiven(full: Chinese) -> None:
    assert score("宫保鸡丁", "宫保鸡T 38元", by=full) >= GOOD


@pytest.mark.parametrize(("query", "text"), [("宫", "宫保鸡丁"), ("计", "合计 76.90"), ("水", "停水")])
def test_one_character_is_enough(query: str, text: str, full: Chinese) -> None:
    assert score(query, text) >= GOOD
    assert score(query, text, by=full) >= GOOD


@pytest.mark.parametrize(
    ("query", "text"), [("台北", "臺北車站"), ("臺北", "台北车站"), ("发票", "電子發票"), ("頭髮", "头发")]
)
def test_simplified_and_traditional_are_one(query: str, text: str, full: Chinese) -> None:
    assert score(query, text, by=full) >= GOOD
    assert score(query, text) < GOOD  # what the package is for


def test_both_spellings_of_a_query(full: Chinese) -> None:
    assert full.spellings("台北") == ["台北", "臺北"]
    assert full.spellings("臺北") == ["臺北", "台北"]
    assert full.spellings("停水") == ["停水"]
    assert full.spellings("cat") == ["cat"]
    assert PLAIN.spellings("台北") == ["台北"]


def test_words_and_not_pairs(full: Chinese) -> None:
    assert cut("超市购物小票", full) == ["超市", "购物", "小票"]
    assert cut("停水通知", full) == ["停水", "通知"]
    assert cut("清华大学", full) == ["清华", "华大", "大学"]


@pytest.mark.parametrize("query", ["", "   ", "!!", "¥", "\n"])
def test_a_query_without_words(query: str) -> None:
    assert score(query, "合计 ¥76.90") in (0, 1)


def test_a_long_query_costs_as_much_as_its_beginning(full: Chinese) -> None:
    long, short = Wanted("停水通知各位业主" * 20_000, full), Wanted(("停水通知各位业主" * 20)[:100], full)
    assert (long.whole, long.words) == (short.whole, short.words)
    assert len(long.words) == 12


@pytest.mark.parametrize(
    ("missing", "said", "words"),
    [
        ("rjieba", "package rjieba is missing", ["超市", "市购", "购物"]),
        ("opencc", "package opencc is missing", ["超市", "购物"]),
    ],
)
def test_each_package_may_be_missing(
    missing: str, said: str, words: list[str], monkeypatch: pytest.MonkeyPatch, full: Chinese
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    found = chinese.load()
    assert said in found.level
    assert cut("超市购物", found) == words
    assert found.spellings("台北") == (["台北"] if missing == "opencc" else ["台北", "臺北"])


def test_patterns_for_a_database_that_folds_nothing(full: Chinese) -> None:
    known = {"台": "臺檯", "x": "Xｘ"}
    assert variants.pattern("台北x1", known) == r"[台臺檯]\s?[北][xXｘ][1]"
    assert variants.pattern("a.b (c)", {}) == r"[a](?:\.)[b]\s+(?:\()[c](?:\))"
    assert variants.pattern("¥%", {"¥": "￥"}) == r"(?:¥|￥)(?:\%)"
    assert variants.table(str.casefold)["k"] == "K"
    assert set(full.variants["发"]) == {"發", "髮"}


@given(st.text(min_size=1, max_size=8))
def test_a_pattern_finds_its_own_word(full: Chinese, word: str) -> None:
    """In Python's dialect, which reads these patterns in the same way as PostgreSQL's."""
    folded = readable(word.replace("\n", " "), full)
    assume(folded.strip() and "\n" not in folded)
    assert re.search(variants.pattern(folded, full.variants), folded)


def test_what_is_looked_for_first_is_what_is_spelt_in_one_way_only() -> None:
    known = {"发": "發髮", "x": "Xｘ"}
    assert variants.like("发票", known) == "%票%"
    assert variants.like("增值 税发x", known) == "%增%值%税%"
    assert variants.like("发x", known) == variants.like(" ", known) == "%"
    assert variants.like("5_0%\\", {}) == r"%5%\_%0%\%%\\%"


@given(st.text(min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_it_is_in_all_that_the_pattern_finds(full: Chinese, word: str, chance: random.Random) -> None:
    folded = readable(word.replace("\n", " "), full)
    assume(folded.strip() and "\n" not in folded)
    text = "".join(chance.choice(variants.spellings(one, full.variants)) for one in folded)
    assume(re.search(variants.pattern(folded, full.variants), text))
    parts = re.split(r"(?<!\\)%|(?<=\\\\)%", variants.like(folded, full.variants))
    assert re.search(".*".join(re.escape(re.sub(r"\\(.)", r"\1", part)) for part in parts), text, re.DOTALL)
