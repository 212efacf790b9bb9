"""Text to tokens as ``cn_clip.clip.tokenize`` does it, token for token, without torch.

The algorithm is BERT's (Devlin et al. 2018; uncased, Chinese): clean, put every Chinese character on its own, split at
white space and punctuation, drop accents, then the longest pieces that the vocabulary knows. It stops as soon as the
context is full, and takes time in proportion to the text at worst, whatever the text is. Runs on Python 3.11 too: the
export script compares it with the original.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

CONTEXT_LENGTH: Final = 52
_MAX_WORD: Final = 200
"""A longer word is unknown without being looked at."""
_CHINESE: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""Code points that stand alone: CJK ideographs, without kana and Hangul. BERT's ranges; later blocks are missing."""


class Tokenizer:
    """BERT's tokenizer over the vocabulary file *path*: one token a line, its number the line's.

    `ValueError` when the file lacks one of the special tokens.
    """

    def __init__(self, path: Path) -> None:
        # Split at line feeds only: some tokens are characters that str.splitlines would split at.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        self._vocabulary = {token.strip(): number for number, token in enumerate(lines)}
        missing = {"[PAD]", "[UNK]", "[CLS]", "[SEP]"} - self._vocabulary.keys()
        if missing:
            raise ValueError(f"{path} is no BERT vocabulary: it lacks {', '.join(sorted(missing))}")

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return the tokens of *text* as int64 [52]: [CLS], at most 50 tokens, [SEP], then zeros."""
        tokens = itertools.islice(self._tokens(text), CONTEXT_LENGTH - 2)
        numbers = [self._vocabulary["[CLS]"], *tokens, self._vocabulary["[SEP]"]]
        result = np.zeros(CONTEXT_LENGTH, np.int64)
        result[: len(numbers)] = numbers
        return result

    def _tokens(self, text: str) -> Iterator[int]:
        for word in _words(text):
            # Lower case and accents go by whole words: a final sigma is one only at the end of its word.
            for part in _split_punctuation(_strip_accents(word.lower())):
                yield from self._pieces(part)

    def _pieces(self, word: str) -> list[int]:
        """Cut *word* into the longest known pieces from its start; [UNK] when some rest is unknown."""
        unknown = [self._vocabulary["[UNK]"]]
        if len(word) > _MAX_WORD:
            return unknown
        pieces: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._vocabulary.get(prefix + word[start:end])
                if number is not None:
                    pieces.append(number)
                    start = end
                    break
            else:
                return unknown
        return pieces


def _words(text: str) -> Iterator[str]:
    """Yield what stands between white space; each Chinese character is a word. Control characters vanish."""
    word: list[str] = []
    for char, kind in zip(text, map(_kind, text), strict=True):
        if kind == "letter":
            word.append(char)
        elif kind != "nothing":
            if word:
                yield "".join(word)
                word = []
            if kind == "chinese":
                yield char
    if word:
        yield "".join(word)


@lru_cache(maxsize=1 << 16)
def _kind(char: str) -> str:
    if char in "\t\n\r":
        return "space"
    if char in "\0\ufffd" or unicodedata.category(char) in {"Cc", "Cf"}:
        return "nothing"
    # isspace() beyond category Zs: line and paragraph separator, at which str.split() splits too.
    if char.isspace():
        return "space"
    code = ord(char)
    return "chinese" if any(first <= code <= last for first, last in _CHINESE) else "letter"


def _strip_accents(word: str) -> str:
    """Return *word* in Normalization Form D, without the non-spacing marks (category Mn).

    Character by character: ``unicodedata.normalize`` puts the marks of a run in order by insertion, which takes minutes
    for a run of a megabyte. Most marks are dropped, so that their order does not matter; those that stay are sorted.
    """
    if word.isascii():
        return word
    decomposed = "".join(map(_decomposed, word))
    if any(unicodedata.combining(char) or unicodedata.category(char) == "Mn" for char in set(decomposed)):
        return "".join(_in_canonical_order(decomposed))
    return decomposed


@lru_cache(maxsize=1 << 16)
def _decomposed(char: str) -> str:
    """Return the canonical decomposition of *char* without the marks that are dropped and hold no others in place."""
    parts = unicodedata.normalize("NFD", char)
    return "".join(part for part in parts if unicodedata.category(part) != "Mn" or not unicodedata.combining(part))


def _in_canonical_order(chars: str) -> Iterator[str]:
    """Yield *chars* with each run of marks sorted by combining class, as Unicode's canonical ordering does it."""
    run: list[str] = []
    for char in chars:
        if unicodedata.combining(char):
            run.append(char)
            continue
        # No mark moves across a character of class 0, not even across one that is itself dropped.
        if run:
            yield from sorted(run, key=unicodedata.combining)
            run.clear()
        if unicodedata.category(char) != "Mn":
            yield char
    yield from sorted(run, key=unicodedata.combining)


def _split_punctuation(word: str) -> Iterator[str]:
    for punctuation, chars in itertools.groupby(word, _is_punctuation):
        if punctuation:
            yield from chars
        else:
            yield "".join(chars)


@lru_cache(maxsize=1 << 16)
def _is_punctuation(char: str) -> bool:
    # All ASCII that is neither letter nor digit, also where Unicode calls it a symbol (^, $, `).
    return (char.isascii() and char.isprintable() and not char.isalnum() and char != " ") or unicodedata.category(
        char
    ).startswith("P")
