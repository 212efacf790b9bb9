"""The settings of mitmproxy as a hardened server, which know neither Immich's models nor Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, override

from immich_triton.core.option_kinds import Address, HostPort, Integer, Kind, Mebibytes, Secret
from immich_triton.core.options import OptionSet, option


class PathToken(Secret):
    """A secret that can stand in a path as it is."""

    @override
    def read(self, name: str, value: str) -> str:
        token = super().read(name, value)
        unreserved = token.isascii() and all(character.isalnum() or character in "-_~" for character in token)
        if token and (len(token) < 16 or not unreserved):
            raise ValueError(
                f"{name} must have at least 16 letters, digits, - or _; for example: "
                'python -c "import secrets; print(secrets.token_urlsafe(24))"'
            )
        return token


class KeptFlows(Kind[int]):
    """How many flows to keep; 0 keeps all."""

    type: ClassVar[Any] = int

    @property
    @override
    def allowed(self) -> str:
        return "0 or more"

    @override
    def read(self, name: str, value: int) -> int:
        if value < 0:
            raise ValueError(f"{name} must be 0 (keep all) or the number of flows to keep")
        return value


@dataclass(frozen=True)
class ProxySettings(OptionSet):
    """Who may come in, and what they may take. Times are in seconds, sizes in bytes; an empty token means none."""

    max_body: int = option(
        "immich_max_body_mib",
        Mebibytes(1, 2048),
        50,
        "Largest body of a /predict, in MiB; a larger one gets 413 before it is read. Immich sends previews of 1 MiB.",
    )
    max_waiting: int = option(
        "immich_max_waiting_mib",
        Mebibytes(1, 1 << 20),
        256,
        "All /predict bodies that the gateway holds at the same time, in MiB. Over it a request gets 503 with "
        "Retry-After before its body is read; text queries are let through.",
    )
    max_connections: int = option(
        "immich_max_connections",
        Integer(1, 1 << 20),
        1000,
        "Most client connections at the same time; a further one is closed at once.",
    )
    header_timeout: int = option(
        "immich_header_timeout",
        Integer(1, 600),
        10,
        "Seconds from the first byte of a request to the end of its headers, the TLS handshake included; then 408.",
    )
    body_timeout: int = option(
        "immich_body_timeout",
        Integer(1, 3600),
        60,
        "Seconds the body of a /predict may take to arrive; for a request that passes through, the longest pause in "
        "its body. Then 408.",
    )
    upstream_timeout: int = option(
        "immich_upstream_timeout",
        Integer(1, 3600),
        290,
        "Longest silence of the stock ML before what passes through gets 504. Long, because the stock ML fetches its "
        "models while the first request waits. Connecting may take 10 s.",
    )
    drain_timeout: int = option(
        "immich_drain_timeout",
        Integer(0, 3600),
        245,
        "Seconds that requests in flight are given to finish after SIGTERM or Ctrl-C; a little more than "
        "immich_deadline, and what stops the gateway (Docker, systemd) must wait longer still. Meanwhile /ping and new "
        "requests get 503.",
    )
    path_token: str = option(
        "immich_path_token",
        PathToken(),
        "",
        "Secret first segment of every path: a client that does not ask for /TOKEN/… gets 404. In Immich 3.0 and later "
        "set the machine learning URL to http://gateway:3004/TOKEN/ (with the slash at the end). Given as file:PATH or "
        "env:NAME, where it stands.",
    )
    keep_flows: int = option(
        "immich_keep_flows",
        KeptFlows(),
        500,
        "How many flows mitmweb and mitmproxy keep to look at, with their images; the oldest are removed. 0 keeps all, "
        "and then memory grows with every request. mitmdump keeps none.",
    )
    metrics_listen: Address | None = option(
        "immich_metrics_listen",
        HostPort(),
        "127.0.0.1:9464",
        "Address, HOST:PORT, of the metrics for Prometheus (/metrics) and of the health of the process (/healthz) and "
        "of the routed models (/readyz). Not for strangers: it is apart from the port that Immich uses. Empty: none.",
    )

    def __post_init__(self) -> None:
        """Raise ValueError for what does not go together."""
        if self.max_body > self.max_waiting:
            raise ValueError("immich_max_waiting_mib must be at least immich_max_body_mib")
