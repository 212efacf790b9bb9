"""What a request is, by its head alone."""

from __future__ import annotations

import pytest
from mitmproxy.http import Request

from immich_triton.ml.classify import classify
from immich_triton.proxy.flow_kind import FlowKind


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/predict", "predict"),
        ("post", "/predict", "predict"),
        ("POST", "//%70redict/?x=/ping", "predict"),
        ("POST", "/predict%0a", "predict"),
        ("GET", "/ping", "ping"),
        ("get", "/x/../ping", "ping"),
        ("GET", "/predict", "pass"),
        ("PUT", "/predict", "pass"),
        ("POST", "/ping", "pass"),
        ("HEAD", "/ping", "pass"),
        ("GET", "/", "pass"),
        ("POST", "/predict/x", "pass"),
        ("OPTIONS", "*", "pass"),
    ],
)
def test_whatever_stock_could_take_for_a_prediction_is_one(method: str, path: str, kind: FlowKind) -> None:
    request = Request.make("GET", "http://ml:3003/")
    request.method, request.path = method, path
    assert classify(request) == kind
