"""The question whether the site is there cannot be one of Immich's own."""

from __future__ import annotations

from immich_triton.immich.site_ping import PING, PONG


def test_it_is_ours_alone() -> None:
    assert PING.startswith("/immich-triton/")
    assert "<" not in PONG  # a page of the web app is told from it
