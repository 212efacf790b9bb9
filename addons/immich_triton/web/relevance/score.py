"""The score of one photo's text for one query. Pure.

Of what counts most to least: how many of the query's words are there; how much of the query stands together, as it was
typed; how many of its pairs of characters are there, which forgives a misread one. Two small parts order what is
otherwise equal: how often the whole query is there, and whether it is a line of its own.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from immich_triton.web.relevance.chinese import IDEOGRAPHS, Chinese

WORDS: Final = 0.5
TOGETHER: Final = 0.3
PAIRS: Final = 0.2
OFTEN: Final = 0.05
ALONE: Final = 0.05

GOOD: Final = 0.6
"""From this score on a text is taken for a hit. Immich's own search is content with half of the words."""

MOST_WORDS: Final = 12
"""Words of a query that are looked for; all their sequences are."""

LONGEST: Final = 100
"""Characters of a query that its words are taken from."""

RUN: Final = re.compile(rf"[{IDEOGRAPHS}]+")
"""What has to be cut into words: ideographs without a blank."""

_TOKEN: Final = re.compile(rf"[{IDEOGRAPHS}]+|[^\W_{IDEOGRAPHS}]+(?:[.,:'/-][^\W_{IDEOGRAPHS}]+)*")
_BLANK_AT_IDEOGRAPH: Final = re.compile(rf"(?<=[{IDEOGRAPHS}])[^\S\n]+|[^\S\n]+(?=[{IDEOGRAPHS}])")
_IDEOGRAPH: Final = re.compile(rf"[{IDEOGRAPHS}]")


def readable(text: str, chinese: Chinese) -> str:
    """Return *text*, of one or more lines, in the form that scores are computed on."""
    folded = _BLANK_AT_IDEOGRAPH.sub("", chinese.fold(text))
    return "\n".join(" ".join(line.split()) for line in folded.split("\n"))


class Wanted:
    """A query, taken apart once for all photos."""

    def __init__(self, query: str, chinese: Chinese) -> None:
        self.whole = readable(query[:LONGEST].replace("\n", " "), chinese)
        spans = []
        for token in _TOKEN.finditer(self.whole):
            if _IDEOGRAPH.match(token[0]):
                spans += [(token.start() + start, token.start() + end) for start, end in chinese.words(token[0])]
            else:
                spans.append(token.span())
        spans = spans[:MOST_WORDS]
        self.words = [self.whole[start:end] for start, end in spans]
        runs = {self.whole[first:last] for at, (first, _) in enumerate(spans) for _, last in spans[at:]}
        self._runs = sorted(runs, key=lambda run: (-len(run), run))
        self._pairs = _pairs_of(self.whole)

    def score(self, text: str) -> float:
        """Return 0 (nothing of the query is in *text*) to 1.1; *text* is `readable`."""
        if not self.words:
            return float(bool(self.whole) and self.whole in text)
        words = sum(map(_weight, (word for word in self.words if _count(word, text)))) / sum(map(_weight, self.words))
        longest = next((run for run in self._runs if _count(run, text)), "")
        together = len(longest) / max(map(len, self._runs))
        there = sum(pair in text for pair in self._pairs) / len(self._pairs) if self._pairs else words
        score = WORDS * words + TOGETHER * together + PAIRS * there
        if times := _count(self.whole, text):
            score += OFTEN * (1 - 1 / times)
            lines = [line for line in text.split("\n") if self.whole in line]
            score += ALONE * len(self.whole) / min(map(len, lines))
        return score


def _weight(word: str) -> int:
    """Return how much a word counts: one of a single character says little."""
    return min(len(word), 2)


def _pairs_of(text: str) -> set[str]:
    return {first + second for first, second in pairwise(text) if not first.isspace() and not second.isspace()}


def _count(words: str, text: str) -> int:
    """Return how often *words* are in *text*; those of letters at the beginning of a word only."""
    if _IDEOGRAPH.match(words):
        return text.count(words)
    count, at = 0, text.find(words)
    while at >= 0:
        before = text[at - 1] if at else " "
        count += not before.isalnum() or bool(_IDEOGRAPH.match(before))
        at = text.find(words, at + len(words))
    return count
