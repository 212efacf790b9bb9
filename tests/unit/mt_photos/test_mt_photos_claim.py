"""Who is let in, by path, method and key, before a body is read."""

from __future__ import annotations

import dataclasses

import pytest
from mitmproxy.http import Request

from immich_triton.mt_photos.claim import PAGES, PREDICTIONS, Claim, path_of
from immich_triton.mt_photos.protocol import KEY_MISSING
from immich_triton.mt_photos.service import Service
from immich_triton.mt_photos.settings import WELL_KNOWN_KEY, Settings


@pytest.fixture
def claim() -> Claim:
    service = Service()
    service._settings = dataclasses.replace(Settings(), key="schlüssel")
    return Claim(service)


def request(method: str, path: str, key: bytes | None = None) -> Request:
    headers = [] if key is None else [(b"api-key", key)]
    return Request.make(method, f"http://localhost{path}", headers=headers)


def test_no_path_is_two_things() -> None:
    assert not PAGES.keys() & PREDICTIONS.keys()


@pytest.mark.parametrize("path", ["/ocr", "//ocr", "/ocr/?x=1", "/%6fcr", "/x/../ocr"])
def test_a_path_is_known_however_it_is_spelt_and_needs_the_key(claim: Claim, path: str) -> None:
    assert path_of(request("POST", path)) == "/ocr"
    assert claim._refusal(request("POST", path)) == (422, KEY_MISSING)
    assert claim._refusal(request("POST", path, "schlüssel".encode())) == (0, None)


@pytest.mark.parametrize("key", [b"", b"schl", "schlüssel ".encode(), WELL_KNOWN_KEY.encode(), b"\xff"])
def test_another_key_is_wrong(claim: Claim, key: bytes) -> None:
    assert claim._refusal(request("POST", "/check", key)) == (401, "Invalid API key")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 0), ("GET", "/ping", 0), ("GET", "/ocr", 405), ("POST", "/", 405), ("PUT", "/ocr", 405)],
)
def test_pages_need_no_key_and_methods_are_looked_at_first(claim: Claim, method: str, path: str, status: int) -> None:
    assert claim._refusal(request(method, path))[0] == status


@pytest.mark.parametrize("path", ["/predict", "/ocr/rec/x", "/docs", "/openapi.json"])
def test_what_mt_photos_ai_does_not_have_is_not_found(claim: Claim, path: str) -> None:
    assert claim._refusal(request("POST", path, "schlüssel".encode())) == (404, "Not Found")
