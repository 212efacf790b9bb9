"""What is told of one search, or one order, when it is over: for metrics and comments. No word of what was asked.

All words here become labels, so they are few; tests/web/test_site_monitoring.py looks for each in the documentation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

Kind = Literal["text", "hybrid", "filtered", "nothing", "stock"]
"""As in `web.question`; "stock" is a search that is Immich's own from the beginning."""

Outcome = Literal[
    "ranked",
    "kept",
    "picture_alone",
    "text_alone",
    "empty",
    "refused",
    "not_understood",
    "shared_link",
    "stock",
    "fault",
]
"""What became of a search:

* ``ranked``: answered as it should be. ``kept``: a later page of a list that was kept.
* ``picture_alone``, ``text_alone``: answered, without the side that failed or took too long. ``empty``: an ``ocr:``
  without words.
* ``refused``: Immich's own refusal was passed on.
* ``stock``: nothing of ours was in it. ``shared_link``: the visitor of a shared link. ``not_understood``: this Immich
  does not know the shape of it. ``fault``: a fault here. These four went on to Immich as they came.
"""

TextFrom = Literal["database", "api"]

OrderOutcome = Literal["queued", "wrong", "refused", "not_possible"]

RunResult = Literal["verified", "unverified", "failed"]


class Stopwatch:
    """The time in which at least one of the things that are timed was under way, in ``seconds``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._open = 0
        self._since = 0.0

    def __enter__(self) -> None:
        if not self._open:
            self._since = self._clock()
        self._open += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open -= 1
        if not self._open:
            self.seconds += self._clock() - self._since


@dataclass
class Account:
    """One search. *by_picture* and *by_text* are how many photos each side found, None where it was not asked.

    *further* of those by text were found by the database only, and shown by Immich.
    """

    kind: Kind = "stock"
    outcome: Outcome = "stock"
    page: int = 1
    by_picture: int | None = None
    by_text: int | None = None
    further: int = 0
    text_from: TextFrom | None = None
    at_immich: Stopwatch = field(default_factory=Stopwatch)

    def in_words(self) -> str:
        """Return it as a comment; empty for a search that is Immich's own."""
        if self.kind == "stock":
            return ""
        sides = [f"{self.by_picture} CLIP"] if self.by_picture is not None else []
        if self.by_text is not None:
            more = f" ({self.further} by the database only)" if self.further else ""
            sides.append(f"{self.by_text} OCR{more}")
        match self.outcome:
            case "ranked":
                said = " + ".join(sides)
            case "kept":
                said = "list kept from page 1"
            case "picture_alone" | "text_alone":
                failed = "text" if self.outcome == "picture_alone" else "picture"
                said = f"{' + '.join(sides)}, the side of the {failed} failed or took too long"
            case "empty":
                said = "ocr: without words"
            case "refused":
                return f"{self.kind}: refused by Immich"
            case "shared_link":
                return f"{self.kind}: left to Immich, by a shared link"
            case "not_understood":
                return f"{self.kind}: left to Immich, which does not know this shape"
            case _:
                return f"{self.kind}: left to Immich, because of a fault here"
        return f"{self.kind}: {said} → page {self.page}"
