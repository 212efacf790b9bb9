"""The kinds of options: what they read, and what they refuse."""

from __future__ import annotations

import pytest

from immich_triton.core.option_kinds import HostPort


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:80", ("::1", 80)), ("gateway:1", ("gateway", 1)), ("", None)],
)
def test_an_address_has_host_and_port(text: str, address: tuple[str, int] | None) -> None:
    assert HostPort().read("immich_metrics_listen", text) == address


@pytest.mark.parametrize("text", ["9464", ":9464", "127.0.0.1", "127.0.0.1:", "h:0", "h:65536", "::1:9464", "h:9４64"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="immich_metrics_listen must be empty or look like"):
        HostPort().read("immich_metrics_listen", text)
