"""What is known of Chinese: where its words end, and which characters are the same in the other script.

Each of the two comes from a package that is installed with this product only. Without them the product works on, one
level lower: pairs of characters instead of words, and 台北 is not 臺北.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from immich_triton.web.relevance import variants

IDEOGRAPHS: Final = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of scripts that are written without blanks, and of Korean, for a regular expression."""

Span = tuple[int, int]


def pairs(run: str) -> list[Span]:
    """Cut a run of ideographs into overlapping pairs, as Immich's own text search does."""
    return [(start, start + 2) for start in range(len(run) - 1)] or [(0, len(run))]


def shortest(words: Iterable[Sequence[int]]) -> list[Span]:
    """Return those of *words* that hold no shorter one: of 停水, 通知 and 停水通知 only the first two.

    The long ones are names for how a person would say it; a notice has its words on several lines.
    """
    spans = sorted({(start, end) for start, end in words})
    return [
        (start, end)
        for start, end in spans
        if not any(start <= first and last <= end and (first, last) != (start, end) for first, last in spans)
    ]


def _as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True)
class Chinese:
    """*words* cuts a run of simplified ideographs; *simplified* and *traditional* convert any text.

    *variants* are the characters that fold to another one, by this one.
    """

    words: Callable[[str], Iterable[Span]] = pairs
    simplified: Callable[[str], str] = _as_it_is
    traditional: Callable[[str], str] = _as_it_is
    variants: Mapping[str, str] = field(default_factory=dict)
    level: str = "pairs of characters; simplified and traditional are two (packages rjieba and opencc are missing)"

    def fold(self, text: str) -> str:
        """Return *text* such that what a reader takes for the same is the same: width, case, script."""
        return self.simplified(unicodedata.normalize("NFKC", text).casefold())

    def spellings(self, text: str) -> list[str]:
        """Return *text* as it was typed, then in the other script where that differs."""
        return list(dict.fromkeys([text, self.simplified(text), self.traditional(text)]))


def load() -> Chinese:
    """Return the best that is installed. Takes half a second for each package: not in the event loop."""
    chinese = Chinese()
    levels = []
    try:
        import rjieba
    except ImportError:
        levels.append("pairs of characters (package rjieba is missing)")
    else:
        rjieba.cut("")  # reads its dictionary

        chinese = replace(chinese, words=lambda run: shortest([at for _, *at in rjieba.tokenize(run, "search")]))
        levels.append("words by jieba")
    try:
        from opencc import OpenCC
    except ImportError:
        levels.append("simplified and traditional are two (package opencc is missing)")
    else:
        chinese = replace(chinese, simplified=OpenCC("t2s").convert, traditional=OpenCC("s2t").convert)
        levels.append("simplified and traditional are one by OpenCC")
    return replace(chinese, variants=variants.table(chinese.fold), level="; ".join(levels))
