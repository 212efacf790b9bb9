"""No spelling of a path slips past, and where a request would go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.http import Request

from immich_triton.proxy.targets import address_of, fold_path


@pytest.mark.parametrize(
    "target",
    [
        "/predict",
        "/predict/",
        "//predict//",
        "/%70redict",
        "/./predict/.",
        "/x/../predict",
        "/../predict",
        "/predict?x=/ping",
        "/predict#/ping",
        "/predict%0a",
        "/predict%20%0D%0A/",
        "/predict%0A?x",
        "/predict/%0a",
        "/%2e%2e/predict",
        "/..//predict/.",
        "/x%2f..%2fpredict",
        "/x/..%2fpredict%0d%0a",
        b"/\xff/../predict?\xfe".decode("utf-8", "surrogateescape"),  # as mitmproxy gives bytes that are no text
    ],
)
def test_spellings_of_one_path(target: str) -> None:
    assert fold_path(target) == "/predict"


@pytest.mark.parametrize(
    ("target", "folded"),
    [
        ("", "/"),
        ("*", "/*"),
        ("/", "/"),
        ("/%2570redict", "/%70redict"),  # once, as servers decode it
        ("/predict%00", "/predict\0"),
        ("/Predict", "/Predict"),
        ("/predictx", "/predictx"),
        ("/predict/x", "/predict/x"),
        ("/x/predict", "/x/predict"),
        ("/predict%0ax", "/predict\nx"),
        ("/predict;x", "/predict;x"),
        ("/猫", "/" + "猫".encode().decode("latin-1")),
        ("/\udcff", "/\xff"),
    ],
)
def test_other_paths_stay_other(target: str, folded: str) -> None:
    assert fold_path(target) == folded


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_is_asked_for_has_a_path_without_steps(target: str) -> None:
    folded = fold_path(target)
    assert folded.startswith("/")
    assert folded == "/" or not {"", ".", ".."}.intersection(folded[1:].split("/"))


@pytest.mark.parametrize("address", ["http://ml:3003", "https://10.0.0.1:443", "http://[::1]:80"])
def test_an_address_comes_back_as_it_went_in(address: str) -> None:
    assert address_of(Request.make("GET", f"{address}/predict")) == address
