"""The settings of the site: its options, declared once, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from immich_triton.core.option_kinds import Address, HostPort, Integer, Milliseconds, Number, OnOff, Secret
from immich_triton.core.options import OptionSet, option
from immich_triton.proxy.settings import KeptFlows
from immich_triton.web.reprocessing.redis_url import RedisUrl

WEIGHT: Final = Number(0, 100)

DATABASE_SCHEMES: Final = ("postgresql://", "postgres://")


@dataclass(frozen=True)
class Settings(OptionSet):
    """What a search is ranked by, and what Immich is told of who asks; ``ocr_timeout`` is in seconds."""

    ocr_prefix: bool = option(
        "web_ocr_prefix",
        OnOff(),
        "on",
        "Whether a search that contains ocr: looks for the words behind it in the text of the photos; on or off.",
    )
    hybrid: bool = option(
        "web_hybrid",
        OnOff(),
        "on",
        "Whether an ordinary smart search is ranked by the picture and by the text in it; on or off. off: Immich's own "
        "order, byte for byte.",
    )
    depth: int = option(
        "web_depth",
        Integer(1, 1000),  # Immich gives at most 1,000 photos on a page
        300,
        "Photos taken from each of Immich's two searches, to be ranked together; behind them Immich's own order goes "
        "on. Photos with text beyond the newest so many are not lifted.",
    )
    clip_weight: float = option(
        "web_clip_weight",
        WEIGHT,
        "1",
        "Weight of the place in Immich's smart search, 0 to 100.",
    )
    ocr_weight: float = option(
        "web_ocr_weight",
        WEIGHT,
        "1",
        "Weight of the place by relevance of the text, 0 to 100.",
    )
    rank_constant: int = option(
        "web_rank_constant",
        Integer(1, 1000),
        60,
        "The constant k of reciprocal rank fusion: a place r adds weight / (k + r). Less favours the first places.",
    )
    ocr_timeout: float = option(
        "web_ocr_timeout",
        Milliseconds(10, 60_000),
        500,
        "Milliseconds that the side of the text may take in a smart search, and longer as long as Immich's search by "
        "picture takes itself; over it the order is that of the picture alone.",
    )
    ocr_lookups: int = option(
        "web_ocr_lookups",
        Integer(0, 1000),
        60,
        "Photos, of those that Immich found by their text, whose text is read to rank them, 8 at a time. The others "
        "come after them. 0: none, the newest first.",
    )
    keep_host: bool = option(
        "web_keep_host",
        OnOff(),
        "on",
        "Whether Immich sees the host name that the browser asked for; on or off. Immich makes the links of shared "
        "albums with it. off: that of --mode, which another web server in between may need.",
    )
    forwarded: bool = option(
        "web_forwarded",
        OnOff(),
        "on",
        "Whether the address of the client is added to X-Forwarded-For, and X-Forwarded-Proto set where it is missing; "
        "on or off. Immich shows the address in its list of devices.",
    )
    database_url: str = option(
        "web_database_url",
        Secret(),
        "",
        "Where the address of Immich's database stands, as file:PATH or env:NAME: "
        "postgresql://immich_triton:PASSWORD@database:5432/immich, for the read-only role of deploy/sql/install.sql. "
        "With it searches find what Immich's own do not: single characters, both Chinese scripts, photos whose search "
        "text is lost. Empty: the text is read by Immich's API.",
    )
    redis_url: str = option(
        "web_redis_url",
        RedisUrl(),
        "",
        "Address of Immich's Redis, e.g. redis://redis:6379/0 (rediss:// with TLS, unix:// for a socket), by "
        "which single photos are processed again. With a password in it, it is given as file:PATH or env:NAME, where "
        "it stands. Empty: such orders get 501.",
    )
    menu: bool = option(
        "web_menu",
        OnOff(),
        "on",
        "Whether the menus of Immich's web app get Refresh OCR and Refresh CLIP, by a script that its page loads; on "
        "or off. Without web_redis_url they do not.",
    )
    drain_timeout: int = option(
        "web_drain_timeout",
        Integer(0, 3600),
        30,
        "Seconds that requests in flight are given to finish after SIGTERM or Ctrl-C; what stops the site (Docker, "
        "systemd) must wait longer. An upload that takes longer is cut off, and the app sends it again. WebSockets are "
        "not waited for.",
    )
    metrics_listen: Address | None = option(
        "web_metrics_listen",
        HostPort(),
        "127.0.0.1:9465",
        "Address, HOST:PORT, of the metrics for Prometheus (/metrics) and of the health of the process (/healthz) and "
        "of Immich behind it (/readyz). Not for strangers: it is apart from the port that people use. Empty: none.",
    )
    keep_flows: int = option(
        "web_keep_flows",
        KeptFlows(),
        500,
        "How many flows mitmweb and mitmproxy keep to look at; the oldest are removed. 0 keeps all, and then memory "
        "grows with every picture that somebody looks at. mitmdump keeps none.",
    )

    def __post_init__(self) -> None:
        """Raise ValueError for what does not go together."""
        if not self.clip_weight and not self.ocr_weight:
            raise ValueError("web_clip_weight and web_ocr_weight must not both be 0: nothing would be ranked")
        if self.database_url and not self.database_url.startswith(DATABASE_SCHEMES):
            allowed = " or ".join(DATABASE_SCHEMES)
            raise ValueError(f"web_database_url must point to an address that begins with {allowed}")

    @property
    def searches(self) -> bool:
        """Whether any search has to be looked at."""
        return self.ocr_prefix or self.hybrid


OPTIONS: Final = Settings.options()
