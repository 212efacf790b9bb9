"""What needs no model is answered at once, and nothing else is touched."""

from __future__ import annotations

import json

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow, tutils

from immich_triton.mt_photos.pages import CHECK, Pages
from immich_triton.mt_photos.service import Service
from immich_triton.proxy.flow_kind import FlowKind, set_kind


def asked(service: Service, path: str, kind: FlowKind = "predict") -> HTTPFlow:
    flow = tflow.tflow(req=tutils.treq(path=path.encode()))
    set_kind(flow, service.id, kind)
    Pages(service).request(flow)
    return flow


@pytest.mark.parametrize("path", ["/check", "/restart", "/restart_v2"])
def test_the_check_and_the_restarts_pass(path: str) -> None:
    response = asked(Service(), path).response
    assert response is not None
    assert json.loads(response.content or b"")["result"] == "pass"


def test_the_page_says_which_service_runs() -> None:
    response = asked(Service(), "/").response
    assert response is not None
    assert f"immich-triton {CHECK['version']}" in (response.text or "")


def test_models_and_pings_are_answered_by_others() -> None:
    assert asked(Service(), "/ocr").response is None
    assert asked(Service(), "/ping", "ping").response is None
    assert asked(Service(), "/", "refused").response is None
