"""Simplified and traditional characters: which of two a recogniser is in doubt about, and what the page says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MOST: Final = 3
"""Variants of a character that are looked at; one of all characters has more, and these are obsolete."""

ONE: Final = -math.log(0.005)
BOTH: Final = -math.log(0.1)
"""A variant that is less likely than a 200th of the character that was read is no second choice, in log-odds; and than
a tenth, where what was read is right in both scripts. Chosen, with the next, on one half of the pages of
``scripts/lab/eval_ocr.py``, tried on the other half: docs/benchmarks.md."""
PAGE: Final = 2.0
"""How much the characters of the other lines weigh."""

SURE, SECOND = 0.9, 0.02
"""How likely a character must be that tells the script of a page, and how likely its variants may be beside it."""
LEAST: Final = 1e-4
"""Below this no probability is told from 0."""

KANA: Final = 10
"""A text with more kana than one for so many Chinese characters is Japanese."""


@dataclass(frozen=True)
class Table:
    """What stands for each class of a recogniser, int32 [C, 1 + `MOST`]: the space, and variants; 0 is none.

    ``script`` int8 [C]: 1 for a character that simplified writing alone has, -1 for one that traditional writing alone
    has, 0 for all others, those that both have among them (台, 后, 里).
    """

    others: Array
    script: Array

    @classmethod
    def of(cls, characters: Sequence[str], rows: Sequence[str]) -> Table:
        """Return the table of *characters*, one for each class, the space last.

        A row of *rows* is a simplified character and the traditional ones that it stands for, itself among them where
        it is one of these.
        """
        classes = {character: index for index, character in enumerate(characters)}
        others = np.zeros((len(characters), 1 + MOST), np.int32)
        others[:, 0] = len(characters) - 1
        found: dict[int, list[int]] = {}
        simplified, traditional = set(), set()
        for row in rows:
            one, *variants = (classes[character] for character in row)
            simplified.add(one)
            traditional.update(variants)
            for variant in variants:
                if variant != one:
                    found.setdefault(variant, []).append(one)
                    # 注 is usual in traditional writing too, 註 an exception; for 台 that is usually 臺.
                    if variants[0] != one:
                        found.setdefault(one, []).append(variant)
        for character, variants in found.items():
            others[character, 1 : 1 + len(variants[:MOST])] = variants[:MOST]
        script = np.zeros(len(characters), np.int8)
        script[list(simplified - traditional)] = 1
        script[list(traditional - simplified)] = -1
        return cls(others, script)


class Choice(NamedTuple):
    """A character of a line that exists in two scripts: its place, script and probability, and those of its variants.

    ``variants``: character, probability, script. A script is 1, -1 or 0, as in `Table`.
    """

    place: int
    script: int
    probability: float
    variants: tuple[tuple[str, float, int], ...]

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
        # A character of both scripts is wrong in neither: it takes more to read 臺 for 台 than 廣 for 广.
        most = min(abs(odds), ONE if self.script else BOTH)
        fitting = [
            (likely, character)
            for character, likely, script in self.variants
            if script * simplified > self.script * simplified and self._log_odds(likely) < most
        ]
        return max(fitting)[1] if fitting else None

    @property
    def _likeliest(self) -> float:
        return max(likely for _, likely, _ in self.variants)

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
        odds = PAGE * math.log((others[1] + 0.5) / (others[-1] + 0.5)) + sum(choice.evidence for choice in choices)
        characters = list(line)
        for choice in choices:
            if variant := choice.decided(odds - choice.evidence):
                characters[choice.place] = variant
        words[index] = "".join(characters)
    return words


def _japanese(text: str) -> bool:
    """Tell whether a text has kana in it, more than the few that signs in Chinese borrow."""
    kana = sum("\u3041" <= character <= "\u30ff" for character in text)
    chinese = sum("\u3400" <= character <= "\u9fff" for character in text)
    return kana > 0 and KANA * kana >= chinese
