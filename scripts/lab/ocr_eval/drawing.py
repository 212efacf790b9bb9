"""Draws lines of text, in rows and in columns, and says where their ink is."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ocr_eval.fonts import Face, absent_characters

Quad = npt.NDArray[np.float64]
"""Corners [4,2] in pixels, x and y, in the order top left, top right, bottom right, bottom left of the text."""

ROWS: Final = 12
COLUMNS: Final = 7
MARGIN: Final = 70
PITCH: Final = 1.12
"""From one character of a column to the next, in sizes."""


@dataclass(frozen=True)
class Line:
    """One line of text and the quadrilateral that its ink fills."""

    text: str
    quad: Quad


@dataclass(frozen=True)
class Colours:
    """Of the paper and of the ink, RGB."""

    paper: tuple[int, int, int]
    ink: tuple[int, int, int]


def rows(
    image: Image.Image,
    choice: Sequence[Face],
    colours: Colours,
    texts: Iterator[str],
    rng: random.Random,
    *,
    margin: int,
    pairs: float,
) -> list[Line]:
    """Set lines from top to bottom; a share *pairs* of the rows holds two, far apart, as receipts have them."""
    pitch = (image.height - 2 * margin) / ROWS
    width = image.width - 2 * margin
    found = []
    for row in range(ROWS):
        cells = [(0.0, 0.42), (0.6, 1.0)] if rng.random() < pairs else [(0.0, 1.0)]
        for left, right in cells:
            size = rng.randint(28, min(76, int(pitch * 0.62)))
            room = (right - left) * width
            found.append(
                set_row(
                    image,
                    rng.choice(choice),
                    size,
                    next(texts),
                    colours,
                    (margin + left * width, room),
                    margin + row * pitch,
                    rng,
                )
            )
    return found


def signs(
    image: Image.Image,
    texts: Sequence[tuple[str, Sequence[Face]]],
    colours: Colours,
    rng: random.Random,
    *,
    margin: int,
) -> list[Line]:
    """Set up to `ROWS` given lines from top to bottom, each in one of its own faces."""
    pitch = (image.height - 2 * margin) / ROWS
    place = margin, image.width - 2 * margin
    found = []
    for row, (text, choice) in enumerate(texts):
        size = rng.randint(28, min(76, int(pitch * 0.62)))
        found.append(set_row(image, rng.choice(choice), size, text, colours, place, margin + row * pitch, rng))
    return found


def set_row(
    image: Image.Image,
    face: Face,
    size: int,
    text: str,
    colours: Colours,
    place: tuple[float, float],
    top: float,
    rng: random.Random,
) -> Line:
    """Set one row at *top* in *place*, its left edge and its width, in smaller print where it would be longer."""
    check_glyphs(face, text)
    start, room = place
    font = face.at(size)
    if (length := font.getlength(text)) > room:
        font = face.at(int(size * room / length))
        length = font.getlength(text)
    x = int(start + rng.uniform(0, min(room - length, 260)))
    draw = ImageDraw.Draw(image)
    draw.text((x, int(top)), text, fill=colours.ink, font=font)
    return Line(text, box(draw.textbbox((x, int(top)), text, font=font)))


def columns(
    image: Image.Image, choice: Sequence[Face], colours: Colours, texts: Iterator[str], rng: random.Random
) -> list[Line]:
    """Set upright characters in columns, the first at the right, as couplets and old books have them."""
    draw = ImageDraw.Draw(image)
    pitch = (image.width - 2 * MARGIN) / COLUMNS
    found = []
    for column in range(COLUMNS):
        text, face = next(texts), rng.choice(choice)
        check_glyphs(face, text)
        size = rng.randint(56, 100)
        font = face.at(size)
        x = int(image.width - MARGIN - (column + 1) * pitch + (pitch - size) / 2)
        y = MARGIN + rng.randint(0, 200)
        boxes = []
        for character in text:
            draw.text((x, y), character, fill=colours.ink, font=font)
            boxes.append(draw.textbbox((x, y), character, font=font))
            y += int(size * 1.12)
        edges = np.array(boxes)
        found.append(Line(text, box((*edges[:, :2].min(axis=0), *edges[:, 2:].max(axis=0)))))
    return found


def long_columns(
    image: Image.Image,
    choice: Sequence[Face],
    colours: Colours,
    texts: Iterator[str],
    rng: random.Random,
    *,
    margin: int,
) -> list[Line]:
    """Set columns as long as the page is high, in small print: those of a scroll or a newspaper."""
    size = 40
    room = int((image.height - 2 * margin) / (size * PITCH))
    found = []
    for column in range(6):
        text = next(texts)
        while len(text) < room:
            text += next(texts)
        x = image.width - margin - int((column + 0.5) * (image.width - 2 * margin) / 6)
        found.append(set_column(image, rng.choice(choice), size, [text[:room]], colours, (x, margin)))
    return found


def verses(
    image: Image.Image, choice: Sequence[Face], colours: Colours, texts: Iterator[str], rng: random.Random
) -> list[Line]:
    """Set a title, and two blocks of columns one above the other; each column has two verses, a blank between them.

    The blank is of one character in the lower block and of two in the upper.
    """
    size, face = 44, rng.choice(choice)
    found = [set_row(image, face, 60, next(texts), colours, (image.width * 0.4, 500), MARGIN, rng)]
    for top, blank in ((230, 2), (1120, 1)):
        columns = rng.randint(4, COLUMNS)
        for column in range(columns):
            x = image.width - 2 * MARGIN - column * 160
            found.append(set_column(image, face, size, [next(texts), next(texts)], colours, (x, top), blank=blank))
    return found


def headed(
    image: Image.Image, choice: Sequence[Face], colours: Colours, texts: Iterator[str], rng: random.Random
) -> list[Line]:
    """Set columns that each begin with a single character and a blank, as entries of a list have it."""
    # Far enough apart that the heads are no line of text themselves.
    size, found = rng.randint(60, 72), []
    for column in range(5):
        text = next(texts)
        x = image.width - 2 * MARGIN - column * 280
        found.append(set_column(image, rng.choice(choice), size, [text[0], text[1:]], colours, (x, 2 * MARGIN)))
    return found


def set_column(
    image: Image.Image,
    face: Face,
    size: int,
    parts: Sequence[str],
    colours: Colours,
    place: tuple[int, int],
    *,
    blank: float = 1.5,
) -> Line:
    """Set one column, its *parts* with a blank of so many characters between them."""
    draw, font = ImageDraw.Draw(image), face.at(size)
    x, y = place
    boxes = []
    for part in parts:
        check_glyphs(face, part)
        for character in part:
            draw.text((x, y), character, fill=colours.ink, font=font)
            boxes.append(draw.textbbox((x, y), character, font=font))
            y += int(size * PITCH)
        y += int(blank * size)
    edges = np.array(boxes)
    return Line("".join(parts), box((*edges[:, :2].min(axis=0), *edges[:, 2:].max(axis=0))))


def check_glyphs(face: Face, text: str) -> None:
    """Raise `ValueError` when *face* cannot set *text*."""
    if absent := absent_characters(face, text):
        raise ValueError(
            f"{face.file} (package {face.package}) has no glyph for {''.join(sorted(absent))!r} of {text!r}"
        )


def box(edges: tuple[float, float, float, float]) -> Quad:
    """Return the corners of a box given by its left, top, right and bottom."""
    left, top, right, bottom = edges
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def rotated(quad: Quad, degrees: float, size: tuple[int, int]) -> Quad:
    """Turn *quad* counter-clockwise about the centre, as ``Image.rotate`` turns the pixels (y points down)."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centre = np.array(size) / 2
    return np.asarray((quad - centre) @ np.array([[cosine, -sine], [sine, cosine]]) + centre)


def turned(quad: Quad, quarters: int, size: tuple[int, int]) -> Quad:
    """Turn *quad* counter-clockwise by *quarters*, as ``Image.transpose`` turns a page of *size* (width, height)."""
    for _ in range(quarters):
        quad = np.stack([quad[:, 1], size[0] - quad[:, 0]], axis=1)
        size = size[1], size[0]
    return quad
