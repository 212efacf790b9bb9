"""CTC decoding: what a recogniser says at each step, to the text of a line, with its spaces and its doubts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_alike import meant
from immich_pipelines.ocr_variants import Choice, Table
from immich_pipelines.onnx_metadata import metadata_props

Array = npt.NDArray[Any]

OUTPUTS: Final = ("indices", "scores", "alternatives")
"""Of a recogniser, as `Decoder` takes them; an export of an earlier version lacks the last."""

VARIANTS: Final = ("simplified", "traditional", "alike")
"""Metadata of a recogniser: rows of `ocr_variants.Table`."""

SPACES: Final = ((4, 0.1), (3, 0.25))
"""A space is set between two characters that are so many steps apart, when it is so likely at one of these, though
another class is likelier, mostly the blank. A step is a sixth of the line's height, letters are one to three apart.
Chosen on one half of the pages of ``scripts/lab/eval_ocr.py``, tried on the other half: docs/benchmarks.md."""

LAST_OF_WORDS: Final = "\u2e7f"
"""Behind it begin the scripts that set no spaces, and their punctuation."""


class Text(NamedTuple):
    """What a line says, its score (0..1), and which characters it has that one Chinese script alone has."""

    words: str
    score: float
    choices: tuple[Choice, ...] = ()


class Decoder:
    """Greedy CTC with the dictionary of one recogniser: one character a line, as in the metadata of its ONNX file.

    *simplified*, *traditional* and *alike* are the rows of `ocr_variants.Table`, none for an earlier export.
    """

    def __init__(
        self,
        dictionary: str,
        simplified: Sequence[str] = (),
        traditional: Sequence[str] = (),
        alike: Sequence[str] = (),
    ) -> None:
        characters = ["", *dictionary.split("\n"), " "]
        self._table = Table.of(characters, simplified, traditional, alike)
        self._characters = np.array(characters, dtype=np.object_)
        # Nothing that PostgreSQL refuses or nobody can see: NUL and other control characters, lone surrogates.
        for index, character in enumerate(self._characters):
            if any(unicodedata.category(part) in {"Cc", "Cs"} for part in character):
                self._characters[index] = ""
        self._spaced = np.array([bool(one) and " " < one <= LAST_OF_WORDS for one in self._characters])

    @classmethod
    def of(cls, path: Path) -> Decoder:
        """Return that of the recogniser in the ONNX file *path*. Raises `ValueError` when it carries no dictionary."""
        metadata = metadata_props(path)
        try:
            return cls(metadata["character"], *(metadata.get(key, "").split() for key in VARIANTS))
        except KeyError:
            raise ValueError(f"{path} carries no metadata `character`; run immich-triton export ocr") from None

    def __call__(self, indices: Array, scores: Array, others: Array | None = None) -> list[Text]:
        """Return what each line says: *indices* and *scores* are [N, T], the class of each step and its probability.

        The score is the mean over the steps that are a character, as RapidOCR's. *others* float32 [N, T, K], how likely
        the classes in `Table.others` are, gives spaces that are not the likeliest class anywhere, and choices.
        """
        if others is None:
            return [self._line(*line, None) for line in zip(indices, scores, strict=True)]
        return [self._line(*line) for line in zip(indices, scores, others, strict=True)]

    def _line(self, indices: Array, scores: Array, others: Array | None) -> Text:
        first = np.append(True, indices[1:] != indices[:-1])
        steps = np.flatnonzero(first & (indices != 0))
        if not len(steps):
            return Text("", 0.0)
        classes = indices[steps]
        pieces = self._characters[classes].tolist()
        # As doubles: the sum of many singles depends on their order.
        score = float(np.mean(scores[steps], dtype=np.float64))
        if others is None:
            return Text("".join(pieces), score)
        for place in np.flatnonzero(self._table.usual[classes]).tolist():
            usual = int(self._table.usual[classes[place]])
            step = steps[place]
            if meant(pieces, place, self._characters[usual], float(others[step, -1] / scores[step])):
                classes[place], pieces[place] = usual, self._characters[usual]
        for place in self._missing_spaces(classes, steps, others[:, 0]):
            pieces[place] += " "
        choices, length = [], 0
        has_variants = self._table.others[classes, 1] > 0
        for place, (piece, doubtful) in enumerate(zip(pieces, has_variants, strict=True)):
            if doubtful:
                step = steps[place]
                choices.append(self._choice(length, int(classes[place]), float(scores[step]), others[step, 1:]))
            length += len(piece)
        return Text("".join(pieces), score, tuple(choices))

    def _missing_spaces(self, classes: Array, steps: Array, space: Array) -> list[int]:
        """Return the places behind which a space is likely enough, between two characters of scripts that set them."""
        word = self._spaced[classes]
        gaps = np.diff(steps)
        wide = np.flatnonzero(word[:-1] & word[1:] & (gaps >= min(gap for gap, _ in SPACES)))
        likely = [(place, space[steps[place] : steps[place + 1]].max()) for place in wide.tolist()]
        return [place for place, most in likely if any(gaps[place] >= gap and most >= least for gap, least in SPACES)]

    def _choice(self, place: int, read: int, probability: float, others: Array) -> Choice:
        table, characters = self._table, self._characters
        variants = [
            (characters[variant], float(likely))
            for variant, likely in zip(table.variants(read), others, strict=False)
            if variant
        ]
        return Choice(place, int(table.script[read]), probability, tuple(variants))
