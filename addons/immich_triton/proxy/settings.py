"""The settings that the proxy itself needs, of whatever product it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProxySettings:
    """Times are in seconds, sizes in bytes; an empty secret means there is none."""

    path_token: str
    max_body: int
    max_connections: int
    header_timeout: int
    body_timeout: int
    upstream_timeout: int
    drain_timeout: int
