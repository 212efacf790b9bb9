"""The options of the site: one table, from which mitmproxy's options and the table in docs/web.md are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from immich_triton.core.options import Setting

SETTINGS: Final = (
    Setting(
        "web_ocr_prefix",
        str,
        "on",
        "Whether a search that contains ocr: looks for the words behind it in the text of the photos; on or off.",
    ),
    Setting(
        "web_hybrid",
        str,
        "on",
        "Whether an ordinary smart search is ranked by the picture and by the text in it; on or off. off: Immich's own "
        "order, byte for byte.",
    ),
    Setting(
        "web_depth",
        int,
        300,
        "Photos taken from each of Immich's two searches, to be ranked together; behind them Immich's own order goes "
        "on. Photos with text beyond the newest so many are not lifted.",
    ),
    Setting(
        "web_clip_weight",
        str,
        "1",
        "Weight of the place in Immich's smart search, 0 to 100.",
    ),
    Setting(
        "web_ocr_weight",
        str,
        "1",
        "Weight of the place by relevance of the text, 0 to 100.",
    ),
    Setting(
        "web_rank_constant",
        int,
        60,
        "The constant k of reciprocal rank fusion: a place r adds weight / (k + r). Less favours the first places.",
    ),
    Setting(
        "web_ocr_timeout",
        int,
        500,
        "Milliseconds that the side of the text may take in a smart search; over it the order is that of the picture "
        "alone.",
    ),
    Setting(
        "web_ocr_lookups",
        int,
        60,
        "Photos, of those that Immich found by their text, whose text is read to rank them, 8 at a time. The others "
        "come after them. 0: none, the newest first.",
    ),
    Setting(
        "web_keep_host",
        str,
        "on",
        "Whether Immich sees the host name that the browser asked for; on or off. Immich makes the links of shared "
        "albums with it. off: that of --mode, which another web server in between may need.",
    ),
    Setting(
        "web_forwarded",
        str,
        "on",
        "Whether the address of the client is added to X-Forwarded-For, and X-Forwarded-Proto set where it is missing; "
        "on or off. Immich shows the address in its list of devices.",
    ),
)

RANGES: Final[Mapping[str, tuple[int, int]]] = {
    # Immich gives at most 1,000 photos on a page.
    "web_depth": (1, 1000),
    "web_rank_constant": (1, 1000),
    "web_ocr_timeout": (10, 60_000),
    "web_ocr_lookups": (0, 1000),
}
"""What the numbers may be, both ends included."""
