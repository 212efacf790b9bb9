"""Reciprocal rank fusion, with sums computed by hand."""

from __future__ import annotations

import pytest

from immich_triton.web.fusion import Ranking, fuse


def test_sums_of_reciprocal_places() -> None:
    # k = 60.  a: 1/61 = .01639   b: 1/62 + 1/61 = .03252   c: 1/63 = .01587   d: 1/62 = .01613
    assert fuse([Ranking("abc", 1), Ranking("bd", 1)], k=60) == ["b", "a", "d", "c"]


def test_a_small_constant_favours_the_first_places() -> None:
    pictures, texts = Ranking("axxyyb".replace("xx", "c").replace("yy", "d"), 1), Ranking("eb", 1)
    # k = 1.  a: 1/2 = .5   c: 1/3   d: 1/4   b: 1/5 + 1/3 = .533   e: 1/2 = .5
    assert pictures.ids == "acdb"
    assert fuse([pictures, texts], k=1) == ["b", "a", "e", "c", "d"]
    # k = 60.  b: 1/64 + 1/62 = .03175   a = e = 1/61 = .01639   c: 1/62   d: 1/63
    assert fuse([pictures, texts], k=60) == ["b", "a", "e", "c", "d"]
    # k = 1, texts count half.  b: 1/5 + 1/6 = .367   e: 1/4 = d
    assert fuse([pictures, Ranking("eb", 0.5)], k=1) == ["a", "b", "c", "d", "e"]


def test_weights() -> None:
    # k = 60.  a: 1/61 = .01639   b: 1/62 = .01613   c: 2/61 = .03279   d: 2/62 = .03226
    assert fuse([Ranking("ab", 1), Ranking("cd", 2)], k=60) == ["c", "d", "a", "b"]
    # Without a weight a ranking still brings its photos, in its own order, behind the others.
    assert fuse([Ranking("ab", 0), Ranking("cb", 1)], k=60) == ["c", "b", "a"]


@pytest.mark.parametrize(("first", "second", "fused"), [("abc", "", "abc"), ("", "abc", "abc"), ("", "", "")])
def test_one_side_alone_stays_as_it_is(first: str, second: str, fused: str) -> None:
    assert fuse([Ranking(first, 1), Ranking(second, 1)], k=60) == [*fused]


def test_equal_sums_keep_the_order_of_the_first_ranking() -> None:
    assert fuse([Ranking("ab", 1), Ranking("ba", 1)], k=60) == ["a", "b"]
    assert fuse([Ranking("a", 1), Ranking("b", 1)], k=60) == ["a", "b"]
