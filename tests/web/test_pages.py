"""How a list is cut into pages and which page of Immich's follows it; how long, and how many, lists are kept."""

from __future__ import annotations

from immich_triton.web.lists import Lists
from immich_triton.web.pages import Ranked


def test_the_list_is_cut_into_pages() -> None:
    ranked = Ranked(tuple("abcdefg"), depth=4)
    assert ranked.pages(3) == 3
    assert [ranked.cut(page, 3) for page in (1, 2, 3, 4)] == [tuple("abc"), tuple("def"), ("g",), ()]
    assert Ranked((), depth=4).pages(3) == 0


def test_behind_the_list_immichs_pages_go_on_from_the_first_that_reaches_beyond_its_depth() -> None:
    # 300 of each search, 430 together: pages 1 to 5 are ours, then come Immich's places 300 to 399, its page 4.
    ranked = Ranked(tuple(map(str, range(430))), depth=300, tail="/api/search/smart")
    assert ranked.pages(100) == 5
    assert [ranked.stock_page(page, 100) for page in (6, 7)] == [4, 5]
    # 300 is no multiple of 70: Immich's page 5 holds the places 280 to 349.
    assert ranked.pages(70) == 7
    assert ranked.stock_page(8, 70) == 5
    # A page larger than the depth takes the depth along.
    assert Ranked(("a",), depth=1000, tail="x").stock_page(2, 1000) == 2


def test_a_list_is_kept_for_ten_minutes() -> None:
    now = [1000.0]
    lists = Lists(clock=lambda: now[0])
    lists.put(b"one", Ranked(("a",), 1))
    now[0] += 599
    assert lists.get(b"one") == Ranked(("a",), 1)
    assert lists.get(b"two") is None
    now[0] += 2
    assert lists.get(b"one") is None
    assert len(lists) == 0


def test_the_oldest_list_makes_room() -> None:
    lists = Lists(most=3)
    for name in (b"1", b"2", b"3"):
        lists.put(name, Ranked((), 1))
    lists.put(b"1", Ranked(("new",), 1))
    lists.put(b"4", Ranked((), 1))
    assert lists.get(b"2") is None
    assert [lists.get(name) is not None for name in (b"1", b"3", b"4")] == [True] * 3
    assert len(lists) == 3


def test_a_thousand_lists_by_itself() -> None:
    lists = Lists()
    for number in range(1500):
        lists.put(str(number).encode(), Ranked((), 1))
    assert len(lists) == 1000


def test_what_immich_does_not_show_leaves_the_list_before_its_page_is_cut() -> None:
    ranked = Ranked(tuple("aBcDeFgH"), depth=4, unproven=frozenset("BDFH"))
    assert ranked.to_prove(1, 3) == ("B",)
    known = ranked.proven(("B",), {"B"})
    assert (known.ids, known.to_prove(1, 3)) == (ranked.ids, ())
    refused = ranked.proven(("B",), ())
    assert refused.cut(1, 3) == ("a", "c", "D")
    assert refused.to_prove(1, 3) == ("D",)
    assert refused.proven(("D",), ()).proven(("F", "H"), {"H"}).ids == tuple("acegH")
