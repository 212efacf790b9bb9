"""Which searches are ours, and what Immich is asked in their place; every filter stays as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from immich_triton.immich.api import METADATA, SMART
from immich_triton.web.question import Question, parse

FLAT: dict[str, Any] = {
    "isFavorite": True,
    "personIds": ["p"],
    "city": "",
    "withExif": True,
    "visibility": "timeline",
    "withDeleted": False,
    "some-day": {"new": 1},
}
NEW: dict[str, Any] = {"filter": {"isFavorite": {"eq": True}, "or": [{"city": {"eq": "x"}}]}, "withExif": True}


def ours(body: dict[str, Any], route: str = SMART, *, prefix: bool = True, hybrid: bool = True) -> Question | None:
    return parse(route, json.dumps(body).encode(), prefix=prefix, hybrid=hybrid)


def must(body: dict[str, Any], route: str = SMART) -> Question:
    question = ours(body, route)
    assert question
    return question


def test_a_text_search_keeps_all_filters_and_drops_what_only_the_smart_one_knows() -> None:
    question = must({"query": "ocr:发票", "language": "zh-CN", "page": 2, "size": 50, **FLAT})
    assert (question.kind, question.picture, question.text, question.page, question.size) == ("text", "", "发票", 2, 50)
    assert question.metadata("发票", size=300) == {**FLAT, "ocr": "发票", "size": 300, "page": 1}


def test_a_text_search_in_the_shape_of_3_2_puts_the_words_into_the_filter() -> None:
    question = must({"query": "ocr:发票", "language": "zh-CN", "size": 50, **NEW})
    wanted = {**NEW, "filter": {**NEW["filter"], "ocr": {"matches": "发票"}}, "size": 300}
    assert question.structured
    assert question.metadata("发票", size=300) == wanted


def test_how_results_are_arranged_is_no_filter() -> None:
    question = must({"query": "ocr:x", "order": "sideways", "withPeople": True, "withStacked": False, "id": "kept"})
    assert question.metadata("x", size=9) == {"id": "kept", "ocr": "x", "size": 9, "page": 1}


@pytest.mark.parametrize(("shape", "added"), [(FLAT, {"ocr": "发票"}), (NEW, {})])
def test_a_mixed_search_is_a_smart_one_with_a_filter(shape: dict[str, Any], added: dict[str, Any]) -> None:
    question = must({"query": "海边 ocr:发票", "language": "zh-CN", **shape})
    body = question.smart()
    assert question.kind == "filtered"
    assert body.pop("query") == "海边"
    if "filter" in shape:
        assert body.pop("filter") == {**shape["filter"], "ocr": {"matches": "发票"}}
    assert body == {**{key: value for key, value in shape.items() if key != "filter"}, **added, "language": "zh-CN"}


def test_an_ordinary_search_asks_both_with_the_same_filters_and_language() -> None:
    question = must({"query": "cat ", "language": "en-US", **FLAT})
    assert question.kind == "hybrid"
    assert question.smart(size=300) == {"query": "cat ", "language": "en-US", **FLAT, "size": 300, "page": 1}
    assert question.metadata(question.text, size=300) == {**FLAT, "ocr": "cat", "size": 300, "page": 1}


@pytest.mark.parametrize(("route", "size"), [(SMART, 100), (METADATA, 250)])
def test_a_page_has_as_many_photos_as_immich_gives_by_itself(route: str, size: int) -> None:
    assert must({"query": "ocr:x"}, route).size == size


@pytest.mark.parametrize("query", ["ocr:", "OCR：  ", "海边 ocr:"])
def test_a_prefix_without_words_finds_nothing(query: str) -> None:
    assert must({"query": query}).kind == "nothing"


@pytest.mark.parametrize(
    "body",
    [
        {"queryAssetId": "x"},
        {"query": "cat", "queryAssetId": "x"},
        {"query": ""},
        {"query": "   "},
        {"query": None},
        {"query": 7},
        {"query": "ocr:" + "停" * 1000},
        {},
        {"query": "cat", "page": 0},
        {"query": "cat", "page": "2"},
        {"query": "cat", "page": 1.5},
        {"query": "cat", "page": True},
        {"query": "cat", "size": 1001},
        {"query": "cat", "size": 0},
        {"query": "cat", "ocr": "x"},
        {"query": "ocr:x", "ocr": "y"},
        {"query": "cat", "filter": {"ocr": {"matches": "x"}}},
        {"query": "cat", "filter": {}, "page": 1},
        {"query": "cat", "filter": None},
        {"query": "cat", "filter": "x"},
    ],
)
def test_immich_answers_what_it_refuses_and_what_cannot_be_added_to(body: dict[str, Any]) -> None:
    assert ours(body) is None


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'"cat"', b"\xff\xfe", b'{"query":"\\ud800"}'])
def test_what_is_no_object_is_left_to_immich(content: bytes) -> None:
    assert parse(SMART, content, prefix=True, hybrid=True) is None


def test_each_part_can_be_switched_off() -> None:
    assert ours({"query": "cat"}, hybrid=False) is None
    assert ours({"query": "ocr:x"}, prefix=False, hybrid=False) is None
    left = ours({"query": "ocr:x"}, prefix=False)
    assert left
    assert (left.kind, left.picture) == ("hybrid", "ocr:x")


def test_of_the_metadata_search_only_the_prefix_is_ours() -> None:
    assert ours({"query": "cat"}, METADATA) is None
    assert ours({"query": "cat ocr:x"}, METADATA) is None
    assert must({"query": "ocr:x"}, METADATA).kind == "text"


@pytest.mark.parametrize(
    ("body", "albums"),
    [
        ({"albumIds": ["a"]}, True),
        ({"albumIds": []}, False),
        ({}, False),
        ({"filter": {"albumIds": {"any": ["a"]}}}, True),
        ({"filter": {"or": [{"albumIds": {"any": ["a"]}}]}}, True),
        ({"filter": {}}, False),
    ],
)
def test_knows_a_search_in_albums(body: dict[str, Any], albums: bool) -> None:
    assert must({"query": "cat", **body}).of_albums is albums


def test_pages_of_one_search_have_one_key() -> None:
    one, two = must({"query": "cat", "page": 1, "size": 5}), must({"size": 5, "page": 2, "query": "cat"})
    assert len(one.key()) == len(must({"query": "cat", "personIds": ["p"] * 9999}).key()) == 64  # a thousand are kept
    assert one.key() == two.key() == must({"query": "cat", "size": 5}).key()
    assert one.key() != must({"query": "cat", "size": 6}).key()
    assert one.key() != must({"query": "cat", "size": 5, "isFavorite": True}).key()
