"""Simplified and traditional characters: which of two a recogniser is in doubt about, and what the page says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MOST: Final = 3
"""Variants of a character that are looked at."""

SECOND_CHOICE: Final = -math.log(0.005)
"""A variant that is less likely than a 200th of the character that was read is no second choice, in log-odds. Chosen,
with the next, on one half of the pages of ``scripts/lab/eval_ocr.py``, tried on the other half: docs/benchmarks.md."""
PAGE: Final = 0.5
"""How much the characters of the other lines weigh: with more, a line that is the only one in its script suffers."""

SURE, SECOND = 0.9, 0.02
"""How likely a character must be that tells the script of a page, and how likely its variants may be beside it."""
LEAST: Final = 1e-4
"""Below this no probability is told from 0."""

SELDOM: Final = 7.0
"""A line whose characters have fewer log-odds than these, on the average, may be in the other script."""
CLEAR: Final = 3
"""A page is in a script of which it has so many times as many sure characters as of the other."""

EACH: Final = 0.2
"""Log-odds that each sure character of another line gives a line that is looked at twice: a line in the other script is
half as likely with every line, and one has three such characters. With `MOST_ODDS` tried on pages and networks that
nothing was chosen on: docs/benchmarks.md."""
MOST_ODDS: Final = 7.0
"""Log-odds that a page gives at most: a line alone in its script is one of a thousand."""

KANA: Final = 10
"""A text with more kana than one for so many Chinese characters is Japanese."""


@dataclass(frozen=True)
class Table:
    """What stands for each class of a recogniser, int32 [C, 1 + `MOST`]: the space, and its variants; 0 is none.

    ``script`` int8 [C]: 1 for a character that simplified writing alone has, -1 for one that traditional writing alone
    has, 0 for all others. ``usual`` int32 [C]: the character that looks like it and is more usual, 0 where there is
    none; it is the last of ``others`` too.
    """

    others: Array
    script: Array
    usual: Array

    @classmethod
    def of(
        cls,
        characters: Sequence[str],
        simplified: Sequence[str],
        traditional: Sequence[str],
        alike: Sequence[str] = (),
    ) -> Table:
        """Return the table of *characters*, one for each class, the space last.

        *simplified* and *traditional* are rows of a character that one script alone has, and its variants; *alike* are
        pairs of a character and the usual one that looks like it: those of an export, whose network says how likely
        they are in this order. Raises `ValueError` when a character has no place left for the usual one.
        """
        classes = {character: index for index, character in enumerate(characters)}
        others = np.zeros((len(characters), 1 + MOST), np.int32)
        others[:, 0] = len(characters) - 1
        script = np.zeros(len(characters), np.int8)
        for sign, rows in ((1, simplified), (-1, traditional)):
            for row in rows:
                one, *variants = (classes[character] for character in row)
                script[one] = sign
                others[one, 1 : 1 + len(variants)] = variants
        usual = np.zeros(len(characters), np.int32)
        for pair in alike:
            one, other = (classes[character] for character in pair)
            if others[one, MOST]:
                raise ValueError(f"{pair[0]} has {MOST} variants already, and no place for {pair[1]}")
            others[one, MOST] = usual[one] = other
        return cls(others, script, usual)

    def variants(self, one: int) -> Array:
        """Return the variants of the class *one*, in the order of ``others`` behind the space; 0 is none."""
        end = MOST if self.usual[one] else 1 + MOST
        return np.asarray(self.others[one, 1:end])


class Choice(NamedTuple):
    """A character of a line that one script alone has: its place, script (1 or -1, as in `Table`) and probability.

    ``variants``: what it is in the other script, each with its probability at the same step.
    """

    place: int
    script: int
    probability: float
    variants: tuple[tuple[str, float], ...]

    @property
    def evidence(self) -> float:
        """What it says for its script, in log-odds: above 0 for simplified writing, below 0 for traditional."""
        return self.script * self._log_odds(self._likeliest)

    @property
    def sure(self) -> bool:
        """Whether the network saw this character and none of its variants."""
        return self.probability >= SURE and self._likeliest < SECOND * self.probability

    def decided(self, odds: float) -> str | None:
        """Return the variant that it is rather, where everything else says with log-*odds* which script this is."""
        simplified = 1 if odds > 0 else -1
        if self.script == simplified:
            return None
        return self.variant if self.open and self._log_odds(self._likeliest) < abs(odds) else None

    @property
    def open(self) -> bool:
        """Whether a variant was a real second choice."""
        return self._log_odds(self._likeliest) < SECOND_CHOICE

    @property
    def variant(self) -> str:
        """What it is in the other script. Nearly always there is one; 复 may be 復 or 複, and the likelier is taken."""
        return max((likely, character) for character, likely in self.variants)[1]

    @property
    def _likeliest(self) -> float:
        return max(likely for _, likely in self.variants)

    def _log_odds(self, likely: float) -> float:
        return math.log(max(self.probability, LEAST) / max(likely, LEAST))


def settled(lines: Sequence[tuple[str, Sequence[Choice]]]) -> list[str]:
    """Return the *lines* of a page, each with its choices made by the page.

    A line is in one script. Which one, is told in log-odds by its other characters, as likely as the network finds them
    and their variants, and by how many characters of the other lines are surely of either: on a page of both scripts
    these balance, and each line is left to itself. A character becomes its variant where the network's log-odds against
    that, at the step where the character was read, are fewer, and never where the variant was no real second choice.
    Japanese, which has characters of both, is left as it is.
    """
    words = [line for line, _ in lines]
    if not any(choices for _, choices in lines) or _japanese("".join(words)):
        return words
    counts = [Counter(choice.script for choice in choices if choice.sure) for _, choices in lines]
    page: Counter[int] = sum(counts, Counter())
    for index, (line, choices) in enumerate(lines):
        others = page - counts[index]
        odds = PAGE * math.log((others[1] + 0.5) / (others[-1] + 0.5)) + evidence(choices)
        characters = list(line)
        for choice in choices:
            if variant := choice.decided(odds - choice.evidence):
                characters[choice.place] = variant
        words[index] = "".join(characters)
    return words


def in_doubt(lines: Sequence[tuple[str, Sequence[Choice]]]) -> dict[int, float]:
    """Return the *lines* of a page that are worth a second look, each with what the other lines say of its script.

    The network was seldom sure of their characters, and the other lines are surely in the other script, or in both, or
    tell nothing. Or it saw characters of both scripts in one line: that the page is in the one of which there are more
    is chance then. What the others say is in log-odds, above 0 for simplified writing (`page_odds`).
    """
    if _japanese("".join(words for words, _ in lines)):
        return {}
    counts = [Counter(choice.script for choice in choices if choice.sure) for _, choices in lines]
    page: Counter[int] = sum(counts, Counter())
    found = {}
    for index, (_, choices) in enumerate(lines):
        others = page - counts[index]
        script = (others[1] > CLEAR * others[-1]) - (others[-1] > CLEAR * others[1])
        told = evidence(choices)
        suspect = told * script <= 0 or len({choice.script for choice in choices}) > 1
        if suspect and abs(told) < SELDOM * len(choices) and not all(choice.sure for choice in choices):
            found[index] = page_odds(others)
    return found


def page_odds(sure: Mapping[int, int]) -> float:
    """Return what a page says of one more line, in log-odds, where so many characters are *sure*ly of a script (1, -1).

    A page is in one script, or in both, in which case every further line might as well have been in the other: each
    that is not makes it less likely, until a line that is an exception on a page of one script is likelier than that.
    """
    odds = EACH * (sure.get(1, 0) - sure.get(-1, 0))
    return max(-MOST_ODDS, min(MOST_ODDS, odds))


def evidence(choices: Sequence[Choice]) -> float:
    """Return what the characters of a line say together, as `Choice.evidence`."""
    return sum(choice.evidence for choice in choices)


def _japanese(text: str) -> bool:
    """Tell whether a text has kana in it, more than the few that signs in Chinese borrow."""
    kana = sum("\u3041" <= character <= "\u30ff" for character in text)
    chinese = sum("\u3400" <= character <= "\u9fff" for character in text)
    return kana > 0 and KANA * kana >= chinese
