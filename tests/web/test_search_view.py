"""The view of an answer to a search: rows for people."""

from __future__ import annotations

import json
from typing import Any

import pytest
from immich_photos import Photo
from mitmproxy.contentviews import Metadata
from mitmproxy.http import Headers, Response
from mitmproxy.test import tflow, tutils

from immich_triton.web.contentview import SearchView
from immich_triton.web.site_notes import note


def shown(body: Any, path: str = "/api/search/smart", said: str = "") -> tuple[float, str]:
    """Return how much the view claims an answer, and what it shows."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    flow = tflow.tflow(req=tutils.treq(method=b"POST", path=path.encode()), resp=True)
    flow.response = Response(b"HTTP/1.1", 200, b"OK", Headers(), data, None, 0, 0)
    if said:
        note(flow, said)
    metadata = Metadata(flow=flow, http_message=flow.response)
    view = SearchView()
    return view.render_priority(data, metadata), view.prettify(data, metadata)


def found(*photos: dict[str, Any], next_page: str | None = None) -> dict[str, Any]:
    return {"assets": {"items": photos, "nextPage": next_page}, "albums": {}}


def test_each_photo_is_a_row() -> None:
    one = Photo(1, favorite=True).as_json(exif=False)
    two = Photo(2, visibility="archive").as_json(exif=False) | {"originalFileName": "a: b\n- c"}
    priority, text = shown(found(one, two, next_page="2"), said="hybrid: 2 CLIP + 0 OCR → page 1")
    assert priority > 1
    assert text.splitlines() == [
        "site: hybrid: 2 CLIP + 0 OCR → page 1",
        "photos: 2, next page 2",
        '  1: "图 1.jpg" · 2025-01-01T00:00 · image · 1440 x 1080 · favourite',
        f"     {one['id']}",
        '  2: "a: b\\n- c" · 2025-01-01T00:00 · image · 1440 x 1080 · archive',
        f"     {two['id']}",
    ]


def test_an_error_of_immich_is_shown_as_its_message() -> None:
    assert shown({"message": "Failed to search smart"})[1] == 'error: "Failed to search smart"'


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"assets": {"items": [1]}}', b'{"assets": null}'])
def test_what_has_another_shape_is_shown_as_it_is(body: bytes) -> None:
    assert shown(body)[1] == body.decode()


@pytest.mark.parametrize("path", ["/api/search/random", "/api/assets", "/"])
def test_only_searches_are_claimed(path: str) -> None:
    assert shown(found(), path)[0] < 0
