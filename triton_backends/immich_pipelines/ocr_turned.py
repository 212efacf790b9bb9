"""Pages that lie on their head or on their side: what could not be read is read once more, turned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_corners import turned
from immich_pipelines.ocr_layout import VERTICAL
from immich_pipelines.ocr_recognition import HEIGHT, cut_line

Array = npt.NDArray[Any]

Text = tuple[str, float]
"""What a line says, and its score."""

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


@dataclass(frozen=True)
class Turn:
    """The lines of a page and the clockwise quarter turns of most of its text: 2 on its head, 3 running upwards."""

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
    doubtful = [
        index for index, (text, score) in enumerate(texts) if score <= max(minimum, DOUBTFUL) or not text.strip()
    ]
    widths = np.array([line.shape[1] for line in lines])
    tall = _height(boxes) >= VERTICAL * _width(boxes)
    result = list(texts)
    probes = sorted(doubtful, key=lambda index: -int(widths[index]))[:PROBES]
    found = (
        dict(zip(probes, await read([_on_its_head(lines[index]) for index in probes]), strict=True)) if probes else {}
    )
    sure = [index for index in probes if _convincing(found[index], int(widths[index]), minimum)]
    quarters = 0
    if 2 * widths[sure].sum() >= widths[probes].sum() and sum(_characters(found[i][0]) for i in sure) >= EVIDENCE:
        rest = [index for index in doubtful if index not in found]
        found |= dict(zip(rest, await read([_on_its_head(lines[index]) for index in rest]), strict=True))
        for index, text in found.items():
            if _better(text, result[index], minimum):
                result[index] = text
        heads = [index for index in found if result[index] is found[index]]
        upright = [index for index in range(len(texts)) if index not in found]
        if widths[heads].sum() > widths[upright].sum():
            quarters = 3 if 2 * widths[heads][tall[heads]].sum() > widths[heads].sum() else 2
            again = await read([_on_its_head(lines[index]) for index in upright])
            for index, text in zip(upright, again, strict=True):
                if text[1] > minimum and text[1] >= result[index][1] - NEARLY:
                    result[index] = text
    await _read_stubs(pixels, boxes, result, quarters, minimum, read)
    return Turn(result, quarters)


async def _read_stubs(
    pixels: Array, boxes: Array, texts: list[Text], quarters: int, minimum: float, read: ReadLines
) -> None:
    """Read the short words of a page that lies on its side: their boxes are not tall, and were cut out as upright."""
    width, height = _width(boxes), _height(boxes)
    tall = height >= VERTICAL * width
    kept = np.array([bool(text.strip()) and score > minimum for text, score in texts], bool)
    if 2 * np.where(kept & tall, height, 0).sum() <= np.where(kept, np.maximum(width, height), 0).sum():
        return
    short = np.flatnonzero(~kept & ~tall & (width < VERTICAL * height)).tolist()[: PROBES if quarters == 0 else None]
    cut = [cut_line(pixels, turned(boxes[index], quarters or 1)) for index in short]
    for index, line, text in zip(short, cut, await read(cut) if cut else [], strict=True):
        if _characters(text[0]) > 1 and text[1] > max(minimum, SURE) and line.shape[1] < SPARSE * len(text[0]):
            texts[index] = text


def _on_its_head(line: Array) -> Array:
    return line[::-1, ::-1]


def _convincing(text: Text, width: int, minimum: float) -> bool:
    characters = _characters(text[0])
    return text[1] > max(minimum, SURE) and characters >= SHORTEST and width <= SPARSE * characters


def _better(text: Text, than: Text, minimum: float) -> bool:
    return bool(text[0].strip()) and text[1] > max(minimum, than[1])


def _characters(text: str) -> int:
    return len("".join(text.split()))


def _width(boxes: Array) -> Array:
    return np.asarray(np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1))


def _height(boxes: Array) -> Array:
    return np.asarray(np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1))
