"""Pages that lie on their head or on their side: what could not be read is read once more, turned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_batches import HEIGHT
from immich_pipelines.ocr_corners import turned
from immich_pipelines.ocr_ctc import Text
from immich_pipelines.ocr_layout import VERTICAL
from immich_pipelines.ocr_recognition import cut_line

Array = npt.NDArray[Any]

ReadLines = Callable[[Sequence[Array]], Awaitable[list[Text]]]
"""Line images (uint8 [48, width, 3]) to what they say."""

PROBES: Final = 3
"""How many doubtful lines are turned to find out whether the page is: the most that this costs an upright page."""

DOUBTFUL: Final = 0.8
"""A line with a lower score may stand on its head, even where the request asks for less."""

SURE: Final = 0.9
"""The score of a turned line that counts as evidence; noise and foreign scripts seldom reach it, text does."""

SHORTEST: Final = 3
EVIDENCE: Final = 4
"""Characters of a line, and of all lines together, that are evidence: a single one is found in any noise."""

SPARSE: Final = 1.6 * HEIGHT
"""Pixels for each character of a line image, above which it has not been read but guessed at."""

NEARLY: Final = 0.1
"""On a turned page the turned reading of a line counts, unless the other one scores so much higher: 1188 is a number
both ways."""

LAST_LATIN: Final = "\u024f"
"""The last of Unicode's Latin letters; nobody sets them below each other, with their feet to the left."""


@dataclass(frozen=True)
class Turn:
    """The lines of a page and the clockwise quarter turns of most of its text.

    1 runs downwards, 2 stands on its head, 3 runs upwards; columns of vertical writing are not turned.
    """

    texts: list[Text]
    quarters: int = 0


async def read_turned(
    pixels: Array, boxes: Array, lines: Sequence[Array], texts: list[Text], minimum: float, read: ReadLines
) -> Turn:
    """Return *texts* with those in place of doubtful ones that are text when they are turned.

    *boxes* (float32 [N, 4, 2]: TL, TR, BR, BL) were cut out of *pixels* as *lines*, and read as *texts*; *minimum* is
    the score above which a line is kept. A page whose lines are all read costs nothing more, one with doubtful lines
    at most `PROBES` lines, unless most of these turn out to be text: then all are read again.
    """
    widths = np.array([line.shape[1] for line in lines])
    doubtful = [
        index for index, text in enumerate(texts) if text.score <= max(minimum, DOUBTFUL) or not text.words.strip()
    ]
    probes = sorted(doubtful, key=lambda index: -int(widths[index]))[:PROBES]
    found = await _on_their_heads(lines, probes, read)
    sure = [index for index in probes if _convincing(found[index], int(widths[index]), minimum)]
    page = Turn(list(texts))
    if 2 * widths[sure].sum() >= widths[probes].sum() and sum(_characters(found[i].words) for i in sure) >= EVIDENCE:
        found |= await _on_their_heads(lines, [index for index in doubtful if index not in found], read)
        page = await _believed(boxes, lines, page.texts, found, minimum, read)
    if _lies_on_its_side(boxes, page.texts, minimum):
        await _read_stubs(pixels, boxes, page, minimum, read)
        if page.quarters == 0 and not _vertical_writing(boxes, page.texts, minimum):
            page = Turn(page.texts, 1)
    return page


async def _on_their_heads(lines: Sequence[Array], which: Sequence[int], read: ReadLines) -> dict[int, Text]:
    """Return what *which* of *lines* say when they are turned by 180 degrees."""
    return dict(zip(which, await read([lines[index][::-1, ::-1] for index in which]) if which else [], strict=True))


async def _believed(
    boxes: Array, lines: Sequence[Array], texts: list[Text], found: dict[int, Text], minimum: float, read: ReadLines
) -> Turn:
    """Return *texts* with what was *found* in the doubtful ones; a page of which that is most is read again whole."""
    widths = np.array([line.shape[1] for line in lines])
    heads = [
        index for index, text in found.items() if text.words.strip() and text.score > max(minimum, texts[index].score)
    ]
    upright = [index for index in range(len(texts)) if index not in found]
    result = list(texts)
    for index in heads:
        result[index] = found[index]
    if widths[heads].sum() <= widths[upright].sum():
        return Turn(result)
    for index, text in (await _on_their_heads(lines, upright, read)).items():
        if text.score > minimum and text.score >= texts[index].score - NEARLY:
            result[index] = text
    tall = np.array(heads)[_tall(boxes[heads])]
    return Turn(result, 3 if 2 * widths[tall].sum() > widths[heads].sum() else 2)


async def _read_stubs(pixels: Array, boxes: Array, page: Turn, minimum: float, read: ReadLines) -> None:
    """Read the short words of a page that lies on its side: their boxes are not tall, and were cut out as upright."""
    square = ~_tall(boxes) & (_width(boxes) < VERTICAL * _height(boxes))
    short = np.flatnonzero(square & ~_kept(page.texts, minimum)).tolist()
    if page.quarters == 0:
        short = short[:PROBES]
    cut = [cut_line(pixels, turned(boxes[index], page.quarters or 1)) for index in short]
    for index, line, text in zip(short, cut, await read(cut) if cut else [], strict=True):
        if _characters(text.words) > 1 and text.score > max(minimum, SURE) and line.shape[1] < SPARSE * len(text.words):
            page.texts[index] = text


def _lies_on_its_side(boxes: Array, texts: Sequence[Text], minimum: float) -> bool:
    """Tell whether most of what was read is in tall boxes."""
    lengths = np.maximum(_width(boxes), _height(boxes)) * _kept(texts, minimum)
    return bool(2 * lengths[_tall(boxes)].sum() > lengths.sum())


def _vertical_writing(boxes: Array, texts: Sequence[Text], minimum: float) -> bool:
    """Tell whether tall boxes hold a script that is written in columns: not mostly Latin letters and digits."""
    read = "".join(texts[index].words for index in np.flatnonzero(_tall(boxes) & _kept(texts, minimum)))
    return 2 * sum(character > LAST_LATIN for character in read) >= _characters(read)


def _kept(texts: Sequence[Text], minimum: float) -> Array:
    return np.array([bool(text.words.strip()) and text.score > minimum for text in texts], bool)


def _tall(boxes: Array) -> Array:
    return np.asarray(_height(boxes) >= VERTICAL * _width(boxes))


def _convincing(text: Text, width: int, minimum: float) -> bool:
    characters = _characters(text.words)
    return text.score > max(minimum, SURE) and characters >= SHORTEST and width <= SPARSE * characters


def _characters(text: str) -> int:
    return len("".join(text.split()))


def _width(boxes: Array) -> Array:
    return np.asarray(np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1))


def _height(boxes: Array) -> Array:
    return np.asarray(np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1))
