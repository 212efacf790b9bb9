"""Compare two answers to the same request: ours and the stock ML's. Pure; used by people, by shadow mode and in tests.

Boxes are matched by intersection over union (greedily, best pair first), texts by Ratcliff/Obershelp similarity
(``difflib``), vectors by cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import fmean
from typing import Any, Final

import numpy as np
import orjson

from immich_triton.inspect.polygons import Polygon, overlapping, rectangle

LEAST_OVERLAP: Final = 0.3
"""Boxes of two detectors that overlap less are different things; a tilted or tighter box of the same line has more."""

SAME_VECTOR: Final = 0.999
"""Cosine from which two embeddings come from the same weights and the same pixels, but for rounding."""

SAME_BOX: Final = 0.9
"""Overlap from which two boxes are the same for every purpose of Immich's."""


@dataclass(frozen=True)
class Pair:
    """Item *ours* of our answer and item *theirs* of the other one show the same thing.

    ``likeness`` is the similarity of the texts or the cosine of the faces' embeddings, 0..1 and -1..1.
    """

    ours: int
    theirs: int
    overlap: float
    likeness: float


@dataclass(frozen=True)
class Comparison:
    """How two answers to one task differ. ``likeness`` of the whole: 1.0 when nothing differs."""

    task: str
    ours: int
    theirs: int
    pairs: tuple[Pair, ...]
    only_ours: tuple[int, ...]
    only_theirs: tuple[int, ...]
    likeness: float
    details: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the answers mean the same to Immich."""
        least = 1.0 if self.task == "ocr" else SAME_VECTOR
        paired = all(pair.likeness >= least and pair.overlap >= SAME_BOX for pair in self.pairs)
        return paired and not self.only_ours and not self.only_theirs

    @property
    def overlap(self) -> float:
        """Mean overlap of the matched boxes; 1.0 when there are none."""
        return fmean(pair.overlap for pair in self.pairs) if self.pairs else 1.0

    @property
    def summary(self) -> str:
        """One line without any text of the image."""
        if self.task == "clip":
            return f"clip cosine {self.likeness:.4f}"
        what, measure = ("lines", "text") if self.task == "ocr" else ("faces", "cosine")
        line = f"{self.task} {len(self.pairs)} of {self.ours}/{self.theirs} {what} match"
        return f"{line}, IoU {self.overlap:.2f}, {measure} {self.likeness:.3f}" if self.pairs else line


class NotComparableError(ValueError):
    """An answer has not the form that Immich expects for a task."""


def compare(task: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Comparison:
    """Compare two whole ``/predict`` answers with respect to *task*. Raises `NotComparableError`."""
    try:
        if task == "clip":
            return _clip(ours["clip"], theirs["clip"])
        if task == "ocr":
            return _ocr(ours["ocr"], theirs["ocr"])
        if task == "facial-recognition":
            return _faces(ours["facial-recognition"], theirs["facial-recognition"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise NotComparableError(f"the answers to {task} cannot be compared ({type(error).__name__})") from error
    raise NotComparableError(f"task {task} cannot be compared")


def vector_of(text: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the numbers of an embedding, which Immich gets as a string that holds a JSON array."""
    return np.asarray(orjson.loads(text), dtype=np.float64).reshape(-1)


def cosine(left: str, right: str) -> float:
    """Return the cosine of two embeddings; 0.0 when one has no length. Raises ValueError when sizes differ."""
    a, b = vector_of(left), vector_of(right)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} numbers and {b.size} numbers")
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 0.0


def text_likeness(left: str, right: str) -> float:
    """Return twice the number of matching characters over the number of all characters; 1.0 for equal texts."""
    return SequenceMatcher(None, left, right, autojunk=False).ratio()


def line_polygons(ocr: Mapping[str, Any]) -> list[Polygon]:
    """Return the four corners of every text line, normalised 0..1."""
    box = ocr["box"]
    return [
        tuple((float(box[at]), float(box[at + 1])) for at in range(start, start + 8, 2))
        for start in range(0, len(box), 8)
    ]


def face_polygons(faces: Sequence[Mapping[str, Any]]) -> list[Polygon]:
    """Return the box of every face as four corners in pixels."""
    return [rectangle(*(float(face["boundingBox"][key]) for key in ("x1", "y1", "x2", "y2"))) for face in faces]


def match(ours: Sequence[Polygon], theirs: Sequence[Polygon]) -> list[tuple[int, int, float]]:
    """Return pairs of indices with their overlap; each index occurs once at most, in the order of *ours*."""
    pairs: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    found = overlapping(ours, theirs, LEAST_OVERLAP)
    for i, j, overlap in sorted(found, key=lambda item: (-item[2], item[0], item[1])):
        if i not in pairs and j not in taken:
            pairs[i] = (j, overlap)
            taken.add(j)
    return [(i, *pairs[i]) for i in sorted(pairs)]


def _clip(ours: str, theirs: str) -> Comparison:
    likeness = cosine(ours, theirs)
    verdict = "the same model" if likeness >= SAME_VECTOR else "another model, or other pixels"
    pair = Pair(0, 0, 1.0, likeness)
    return Comparison("clip", 1, 1, (pair,), (), (), likeness, (f"cosine {likeness:.6f}: {verdict}",))


def _ocr(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Comparison:
    mine, others = ours["text"], theirs["text"]
    pairs = tuple(
        Pair(i, j, overlap, text_likeness(mine[i], others[j]))
        for i, j, overlap in match(line_polygons(ours), line_polygons(theirs))
    )
    # Of all characters of both sides, the share that the other side has too: a line that one side lacks counts fully.
    total = sum(map(len, mine)) + sum(map(len, others))
    matching = sum(pair.likeness * (len(mine[pair.ours]) + len(others[pair.theirs])) for pair in pairs)
    details = [
        f"= {mine[pair.ours]}" if pair.likeness == 1.0 else f"~ {mine[pair.ours]}\n  {others[pair.theirs]}"
        for pair in pairs
    ]
    only_ours, only_theirs = _rest(len(mine), len(others), pairs)
    details += [f"+ {mine[index]}" for index in only_ours]
    details += [f"- {others[index]}" for index in only_theirs]
    likeness = matching / total if total else 1.0
    return Comparison("ocr", len(mine), len(others), pairs, only_ours, only_theirs, likeness, tuple(details))


def _faces(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> Comparison:
    pairs = tuple(
        Pair(i, j, overlap, cosine(ours[i]["embedding"], theirs[j]["embedding"]))
        for i, j, overlap in match(face_polygons(ours), face_polygons(theirs))
    )
    only_ours, only_theirs = _rest(len(ours), len(theirs), pairs)
    details = [
        f"face {pair.ours + 1}: IoU {pair.overlap:.3f}, cosine {pair.likeness:.5f}, "
        f"score {ours[pair.ours]['score']:.3f} and {theirs[pair.theirs]['score']:.3f}"
        for pair in pairs
    ]
    details += [f"+ face {index + 1}, score {ours[index]['score']:.3f}" for index in only_ours]
    details += [f"- face {index + 1}, score {theirs[index]['score']:.3f}" for index in only_theirs]
    alone = len(only_ours) + len(only_theirs)
    total = 2 * len(pairs) + alone
    likeness = 2 * sum(pair.likeness for pair in pairs) / total if total else 1.0
    return Comparison(
        "facial-recognition", len(ours), len(theirs), pairs, only_ours, only_theirs, likeness, tuple(details)
    )


def _rest(ours: int, theirs: int, pairs: Sequence[Pair]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    mine, others = {pair.ours for pair in pairs}, {pair.theirs for pair in pairs}
    return tuple(i for i in range(ours) if i not in mine), tuple(j for j in range(theirs) if j not in others)
