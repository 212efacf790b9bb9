"""Answers that the gateway gives itself."""

from __future__ import annotations

import json

import pytest
from mitmproxy.http import Response

from immich_triton.proxy.answers import LONGEST, RETRY_AFTER, detail_of, error_response, json_response


@pytest.mark.parametrize("status", [200, 400, 500, 503])
def test_only_who_is_not_there_says_when_to_come_again(status: int) -> None:
    response = json_response(status, {"text": "猫"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get("retry-after") == (RETRY_AFTER if status == 503 else None)
    assert json.loads(response.content or b"") == {"text": "猫"}


def test_an_error_is_in_the_shape_of_stock() -> None:
    assert error_response(404, "Not Found").content == b'{"detail":"Not Found"}'
    assert error_response(422, [{"loc": ["body"]}]).content == b'{"detail":[{"loc":["body"]}]}'


def test_half_a_character_of_a_request_does_not_break_the_answer_about_it() -> None:
    assert error_response(400, "no model \ud83d").content == b'{"detail":"no model ?"}'


def test_the_reason_is_told_on_one_line_and_not_at_length() -> None:
    assert detail_of(error_response(500, "no\n  memory")) == "no memory"
    assert detail_of(error_response(422, [{"loc": ["body"]}])) == '[{"loc":["body"]}]'
    assert detail_of(error_response(500, "x" * LONGEST)) == "x" * LONGEST
    assert detail_of(error_response(500, "x" * (LONGEST + 1))) == "x" * LONGEST + "…"


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'"detail"', b"null", b"\xff"])
def test_another_answer_has_no_reason(body: bytes) -> None:
    assert detail_of(Response.make(500, body)) == ""
