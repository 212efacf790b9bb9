"""Marks: which lines were detected, which were read right, how many characters.

Matching. Engines draw boxes of different tightness: on a line 30 px high, 6 px more all around halve the intersection
over union, though nothing is wrong with the box. And one line with a wide gap may rightly come as two boxes. So a found
box belongs to the true line that holds most of its area inside its *band* (its ink box grown on all sides by a quarter
of its height), if that is at least half of the found box. A true line is **detected** when the boxes that belong to it
cover at least half of its ink box; its text is their texts joined along the line. A box that swallows two lines belongs
to one of them at most, so that the other is missed; a box that belongs to no line is **extra**. A line is **in order**
when its boxes come one after the other, along the line, and next after those of the lines before it.

A line is exact **but for spaces** when nothing else is wrong. A **mix-up** is a character that was read as its
simplified or traditional form, where the page shows the other: such a photo is not found by the word that is on it.

Text. Unicode NFKC folds full-width forms (``￥``) into ordinary ones. Runs of spaces count as one, and a space beside a
Chinese character as none: there it is typography. Between Latin words and numbers spaces count. Character accuracy is
1 − CER: Levenshtein distance summed over all lines, a missed line costing all its characters, divided by the characters
of the truth.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any, Final

import numpy as np
from shapely import Polygon, buffer, unary_union  # type: ignore[import-untyped]  # publishes no types

from immich_triton.export.ocr import chinese_variants
from ocr_eval.drawing import Line, Quad
from ocr_eval.pages import Page

BAND: Final = 0.25
BELONGS: Final = 0.5
DETECTED: Final = 0.5

_CHINESE: Final = r"[\u3000-\u303f\u3400-\u9fff\uf900-\ufaff]"
_SPACE_BESIDE_CHINESE: Final = re.compile(rf"(?<={_CHINESE}) | (?={_CHINESE})")


@dataclass(frozen=True)
class Found:
    """One text box of an answer: corners [4,2] in pixels; the text is empty when only detection was asked."""

    quad: Quad
    text: str = ""


@dataclass(frozen=True)
class Reading:
    """What an engine made of one page: the boxes of detection alone, and the lines that it kept after recognition."""

    detected: Sequence[Found]
    read: Sequence[Found]


@dataclass(frozen=True)
class Mark:
    """One true line: whether it was detected, what was read, how many edits that is away from the truth."""

    truth: str
    read: str
    detected: bool
    edits: int
    in_order: bool
    mix_ups: int = 0

    @property
    def exact_but_for_spaces(self) -> bool:
        """Tell whether every character but spaces is right."""
        return self.truth.replace(" ", "") == self.read.replace(" ", "")

    @property
    def exact(self) -> bool:
        """Tell whether every character is right."""
        return self.edits == 0


@dataclass
class Tally:
    """Sums over lines; the four rates lie in 0..1 (character accuracy can fall below 0 when much is invented)."""

    lines: int = 0
    detected: int = 0
    exact: int = 0
    unspaced: int = 0
    mix_ups: int = 0
    in_order: int = 0
    characters: int = 0
    edits: int = 0

    def add(self, mark: Mark) -> None:
        """Count one line."""
        self.lines += 1
        self.detected += mark.detected
        self.exact += mark.exact
        self.unspaced += mark.exact_but_for_spaces
        self.mix_ups += mark.mix_ups
        self.in_order += mark.in_order
        self.characters += len(mark.truth)
        self.edits += mark.edits

    @property
    def recall(self) -> float:
        """Detected lines over true lines."""
        return self.detected / self.lines

    @property
    def exact_rate(self) -> float:
        """Lines without a wrong character over true lines."""
        return self.exact / self.lines

    @property
    def unspaced_rate(self) -> float:
        """Lines without a wrong character but spaces over true lines."""
        return self.unspaced / self.lines

    @property
    def order_rate(self) -> float:
        """Lines read in order over true lines."""
        return self.in_order / self.lines

    @property
    def character_accuracy(self) -> float:
        """1 − CER."""
        return 1 - self.edits / self.characters

    def as_dict(self) -> dict[str, float | int]:
        """Return the figures for ``--json``."""
        return {
            "lines": self.lines,
            "recall": round(self.recall, 5),
            "exact": round(self.exact_rate, 5),
            "exact_but_for_spaces": round(self.unspaced_rate, 5),
            "variant_mix_ups": self.mix_ups,
            "characters": round(self.character_accuracy, 5),
            "in_order": round(self.order_rate, 5),
        }


class Report:
    """The marks of one engine, in total and per category (the script and the condition of the page)."""

    def __init__(self) -> None:
        self.total = Tally()
        self.categories: dict[str, Tally] = defaultdict(Tally)
        self.extra = 0
        self.seconds: list[float] = []
        self.mistakes: list[dict[str, str]] = []

    def add(self, page: Page, reading: Reading, seconds: float) -> None:
        """Mark one page; *seconds* is what the full answer took."""
        marks, extra = mark_page(page.lines, reading)
        self.extra += extra
        self.seconds.append(seconds)
        for mark in marks:
            # A scene as it is drawn has one category only.
            for tally in (
                self.total,
                *(self.categories[name] for name in dict.fromkeys((page.script, page.condition))),
            ):
                tally.add(mark)
            if not mark.exact:
                self.mistakes.append({"page": page.name, "truth": mark.truth, "read": mark.read})

    def as_dict(self) -> dict[str, Any]:
        """Return everything for ``--json``."""
        return {
            "total": self.total.as_dict(),
            "extra_boxes": self.extra,
            "seconds_per_page_median": round(float(np.median(self.seconds)), 4) if self.seconds else None,
            "categories": {name: tally.as_dict() for name, tally in self.categories.items()},
            "mistakes": self.mistakes,
        }


def mark_page(truth: Sequence[Line], reading: Reading) -> tuple[list[Mark], int]:
    """Return a mark for each true line and the number of extra boxes among the lines read."""
    detected = match(truth, reading.detected)
    read = match(truth, reading.read)
    along = [_along(line, read[index]) for index, line in enumerate(truth)]
    ordered = _in_order(along, reading.read)
    marks = []
    for index, line in enumerate(truth):
        text = normalised(" ".join(found.text for found in along[index]))
        wanted = normalised(line.text)
        marks.append(
            Mark(
                wanted,
                text,
                covered(line, detected[index]),
                edit_distance(wanted, text),
                in_order=ordered[index],
                mix_ups=mix_ups(wanted, text),
            )
        )
    return marks, len(reading.read) - sum(map(len, read.values()))


def _in_order(lines: Sequence[Sequence[Found]], read: Sequence[Found]) -> list[bool]:
    """Tell for each line, given as its boxes, whether it stands at its place in what was *read*; extra boxes aside."""
    wanted = [id(box) for line in lines for box in line]
    known = set(wanted)
    place = {box: number for number, box in enumerate(id(box) for box in read if id(box) in known)}
    start = 0
    ordered = []
    for line in lines:
        places = [place[id(box)] for box in line]
        ordered.append(bool(places) and places == list(range(start, start + len(places))))
        start = max([start, *(number + 1 for number in places)])
    return ordered


def match(truth: Sequence[Line], found: Iterable[Found]) -> dict[int, list[Found]]:
    """Give every found box to the true line that it belongs to, by index; see the module's docstring."""
    bands = []
    for line in truth:
        height = min(np.linalg.norm(line.quad[3] - line.quad[0]), np.linalg.norm(line.quad[1] - line.quad[0]))
        bands.append(buffer(Polygon(line.quad), BAND * float(height), join_style="mitre"))
    belonging: dict[int, list[Found]] = {index: [] for index in range(len(truth))}
    for box in found:
        shape = _valid(box.quad)
        if shape.area == 0:
            continue
        shares = [shape.intersection(band).area / shape.area for band in bands]
        best = int(np.argmax(shares)) if shares else -1
        if best >= 0 and shares[best] >= BELONGS:
            belonging[best].append(box)
    return belonging


def covered(line: Line, boxes: Sequence[Found]) -> bool:
    """Tell whether *boxes* together cover at least half of the line's ink box."""
    ink = Polygon(line.quad)
    return bool(unary_union([_valid(box.quad) for box in boxes]).intersection(ink).area >= DETECTED * ink.area)


def normalised(text: str) -> str:
    """Return *text* as it is compared; see the module's docstring."""
    folded = " ".join(unicodedata.normalize("NFKC", text).split())
    return _SPACE_BESIDE_CHINESE.sub("", folded)


def edit_distance(left: str, right: str) -> int:
    """Return the Levenshtein distance: insertions, deletions and substitutions of characters, each at cost 1."""
    previous = list(range(len(right) + 1))
    for row, wanted in enumerate(left, 1):
        current = [row]
        for column, got in enumerate(right, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (wanted != got)))
        previous = current
    return previous[-1]


def mix_ups(wanted: str, got: str) -> int:
    """Count the characters of *wanted* that *got* has in the other script: 场 for 場, or 台 for 臺."""
    if not variants().keys() & set(wanted):
        return 0
    return sum(
        other in variants().get(character, ())
        for tag, start, end, begin, stop in SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes()
        if tag == "replace" and end - start == stop - begin
        for character, other in zip(wanted[start:end], got[begin:stop], strict=True)
    )


@cache
def variants() -> Mapping[str, frozenset[str]]:
    """Return the characters of the other script that stand for a character, by OpenCC's dictionaries."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in chinese_variants.rows():
        for variant in set(row[1:]) - {row[0]}:
            found[row[0]].add(variant)
            found[variant].add(row[0])
    return {character: frozenset(others) for character, others in found.items()}


def _along(line: Line, boxes: Sequence[Found]) -> list[Found]:
    """Order boxes along the longer side of the line: left to right, a column from top to bottom."""
    across, down = line.quad[1] - line.quad[0], line.quad[3] - line.quad[0]
    direction = across if np.linalg.norm(across) >= np.linalg.norm(down) else down
    return sorted(boxes, key=lambda box: float(box.quad.mean(axis=0) @ direction))


def _valid(quad: Quad) -> Polygon:
    shape = Polygon(quad)
    # A detector may give corners in an order that crosses itself.
    return shape if shape.is_valid else shape.convex_hull
