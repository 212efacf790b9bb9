"""What a request to Immich's machine learning is, by its head alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immich_triton.proxy.targets import fold_path

if TYPE_CHECKING:
    from mitmproxy.http import Request

    from immich_triton.proxy.flow_kind import FlowKind


def classify(request: Request) -> FlowKind:
    """Return "predict" and "ping" for what stock could take for these, however it is spelt, else "pass"."""
    path, method = fold_path(request.path), request.method.upper()
    if path == "/predict" and method == "POST":
        return "predict"
    if path == "/ping" and method == "GET":
        return "ping"
    return "pass"
