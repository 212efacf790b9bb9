"""What the site writes down about a request, in words, for people who look at the flow later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from immich_triton.core import flow_state

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow


def note(flow: HTTPFlow, text: str) -> None:
    """Write down what was done with a request; no word of what was asked."""
    flow_state.SITE.set(flow, text)
