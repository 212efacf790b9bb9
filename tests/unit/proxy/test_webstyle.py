"""Comments get room in mitmweb's page."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mitmproxy.addonmanager import Loader
from mitmproxy.test import taddons
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from immich_triton.proxy.webstyle import STYLE, WEB_COLUMNS, AddStyle, WebStyle

PAGE = b"<html><head></head><body></head></body></html>"


def transformed(content_type: str, chunk: bytes, **more: str) -> tuple[HTTPHeaders, bytes]:
    transform = AddStyle(HTTPServerRequest("GET", "/"))
    headers = HTTPHeaders({"Content-Type": content_type, **more})
    status, headers, body = transform.transform_first_chunk(200, headers, chunk, finishing=True)
    assert status == 200
    return headers, body


def test_the_style_sheet_is_put_into_the_head_once() -> None:
    headers, body = transformed("text/html; charset=UTF-8", PAGE, **{"Content-Length": str(len(PAGE))})
    assert body == PAGE.replace(b"</head>", STYLE, 1)
    assert STYLE.endswith(b"</head>")
    assert int(headers["Content-Length"]) == len(body)


def test_a_page_of_unknown_length_gets_none() -> None:
    headers, body = transformed("text/html", PAGE)
    assert STYLE in body
    assert "Content-Length" not in headers


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/javascript"])
def test_what_is_no_page_stays_as_it_is(content_type: str) -> None:
    assert transformed(content_type, PAGE)[1] == PAGE


@pytest.mark.parametrize("chosen", [list(WEB_COLUMNS), ["path", "size"]])
def test_columns_that_the_user_chose_stay(chosen: list[str]) -> None:
    with taddons.context() as context:
        style = WebStyle()
        context.options.add_option("web_columns", list, [], "Columns.")
        context.options.update(web_columns=chosen)
        style.load(Loader(context.master))
        is_default = tuple(chosen) == WEB_COLUMNS
        assert ("comment" in context.options.web_columns) == is_default
        assert (context.options.web_columns == chosen) != is_default


def test_a_reload_does_not_add_it_again() -> None:
    with taddons.context() as context:
        compress = type("Compress", (), {})
        transforms: list[type] = [compress]
        context.master.app = SimpleNamespace(transforms=transforms)
        for _ in range(2):
            WebStyle().running()
        assert transforms == [AddStyle, compress]


def test_without_mitmweb_there_is_nothing_to_do() -> None:
    with taddons.context() as context:
        WebStyle().load(Loader(context.master))
        WebStyle().running()
        assert "web_columns" not in context.options
