"""Renders the exam: previews as Immich sends them, with every line's text and place known."""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ocr_eval.fonts import Face, absent_characters, faces, require_fonts
from ocr_eval.texts import Script, lines

Quad = npt.NDArray[np.float64]
"""Corners [4,2] in pixels, x and y, in the order top left, top right, bottom right, bottom left of the text."""

SEED: Final = 20250610
SHORT_SIDE, LONG_SIDE = 1440, 1920
"""Immich's preview: the shorter side is 1440 px by default."""

ROWS: Final = 12
COLUMNS: Final = 7
MARGIN: Final = 70


class Condition(StrEnum):
    """What makes a page harder to read."""

    CLEAN = "clean"
    ROTATED = "rotated ±5°"
    BLURRED = "blurred"
    JPEG = "JPEG q50"
    FAINT = "low contrast"
    VERTICAL = "vertical"


@dataclass(frozen=True)
class Line:
    """One line of text and the quadrilateral that its ink fills."""

    text: str
    quad: Quad


@dataclass(frozen=True)
class Page:
    """One preview: its JPEG bytes, its size, and the lines on it in reading order."""

    name: str
    script: Script
    condition: Condition
    jpeg: bytes
    width: int
    height: int
    lines: Sequence[Line]


@dataclass(frozen=True)
class _Colours:
    paper: tuple[int, int, int]
    ink: tuple[int, int, int]


def exam() -> Iterator[Page]:
    """Yield the pages, always the same ones: every script in every condition, Chinese also in vertical columns.

    Over 300 lines on 29 pages. Same Pillow and same fonts give the same pixels (`pixel_digest`). Raises
    `FontsMissingError` when a font is not installed.
    """
    require_fonts()
    number = 0
    for script in Script:
        # One stream of lines per script, so that a phrase comes again only when all have been used.
        texts = lines(script, _random(f"{script} texts"))
        for condition in Condition:
            if condition is not Condition.VERTICAL:
                yield _page(number, script, condition, texts)
                number += 1
    for script in (Script.SIMPLIFIED, Script.TRADITIONAL):
        texts = lines(script, _random(f"{script} columns"), vertical=True)
        for _ in range(2):
            yield _page(number, script, Condition.VERTICAL, texts)
            number += 1


def pixel_digest(pages: Sequence[Page]) -> str:
    """Return the hex SHA-256 over the decoded pixels of *pages*."""
    digest = hashlib.sha256()
    for page in pages:
        digest.update(np.asarray(Image.open(io.BytesIO(page.jpeg))).tobytes())
    return digest.hexdigest()


def _random(purpose: str) -> random.Random:
    """Return a generator of its own for each purpose: a change of one part leaves the others as they are."""
    return random.Random(f"{SEED} {purpose}")  # noqa: S311 - nothing here is secret


def _page(number: int, script: Script, condition: Condition, texts: Iterator[str]) -> Page:
    # Not the stream of the texts: a change of the layout must not change what is written.
    rng = _random(f"{number} layout")
    size = (SHORT_SIDE, LONG_SIDE) if number % 2 else (LONG_SIDE, SHORT_SIDE)
    colours = _colours(rng, faint=condition is Condition.FAINT)
    image = Image.new("RGB", size, colours.paper)
    # Another face for each line: a face on one page only could not be told from that page's condition.
    choice = faces(script)
    if condition is Condition.VERTICAL:
        page_lines = _columns(image, choice, colours, texts, rng)
    else:
        # A corner of the page moves by sin 5° of half its length.
        turned = math.ceil(math.sin(math.radians(5)) * LONG_SIDE / 2) if condition is Condition.ROTATED else 0
        pairs = 0.35 if script is Script.DIGITS else 0.0
        page_lines = _rows(image, choice, colours, texts, rng, margin=MARGIN + turned, pairs=pairs)
    if condition is Condition.ROTATED:
        angle = rng.choice((-1, 1)) * rng.uniform(2.5, 5.0)
        image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=colours.paper)
        page_lines = [Line(line.text, _rotated(line.quad, angle, size)) for line in page_lines]
    if condition is Condition.BLURRED:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1.6, 2.2)))
    image = _photographed(image, number)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50 if condition is Condition.JPEG else 80)
    return Page(
        f"{number:02}-{script}-{condition.name.lower()}", script, condition, buffer.getvalue(), *size, page_lines
    )


def _colours(rng: random.Random, *, faint: bool) -> _Colours:
    light = tuple(rng.randint(222, 255) for _ in range(3))
    dark = tuple(rng.randint(0, 70) for _ in range(3))
    paper, ink = (dark, light) if rng.random() < 0.25 else (light, dark)
    if faint:
        # About 40 of 255 levels apart: easy for an eye, close to what a faded receipt gives.
        step = rng.randint(36, 46)
        ink = tuple(level + (step if paper is dark else -step) for level in paper)
    return _Colours((paper[0], paper[1], paper[2]), (ink[0], ink[1], ink[2]))


def _rows(
    image: Image.Image,
    choice: Sequence[Face],
    colours: _Colours,
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
                _row(
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


def _row(
    image: Image.Image,
    face: Face,
    size: int,
    text: str,
    colours: _Colours,
    place: tuple[float, float],
    top: float,
    rng: random.Random,
) -> Line:
    _check_glyphs(face, text)
    start, room = place
    font = face.at(size)
    if (length := font.getlength(text)) > room:
        font = face.at(int(size * room / length))
        length = font.getlength(text)
    x = int(start + rng.uniform(0, min(room - length, 260)))
    draw = ImageDraw.Draw(image)
    draw.text((x, int(top)), text, fill=colours.ink, font=font)
    return Line(text, _box(draw.textbbox((x, int(top)), text, font=font)))


def _columns(
    image: Image.Image, choice: Sequence[Face], colours: _Colours, texts: Iterator[str], rng: random.Random
) -> list[Line]:
    """Set upright characters in columns, the first at the right, as couplets and old books have them."""
    draw = ImageDraw.Draw(image)
    pitch = (image.width - 2 * MARGIN) / COLUMNS
    found = []
    for column in range(COLUMNS):
        text, face = next(texts), rng.choice(choice)
        _check_glyphs(face, text)
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
        found.append(Line(text, _box((*edges[:, :2].min(axis=0), *edges[:, 2:].max(axis=0)))))
    return found


def _check_glyphs(face: Face, text: str) -> None:
    if absent := absent_characters(face, text):
        raise ValueError(
            f"{face.file} (package {face.package}) has no glyph for {''.join(sorted(absent))!r} of {text!r}"
        )


def _box(edges: tuple[float, float, float, float]) -> Quad:
    left, top, right, bottom = edges
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def _rotated(quad: Quad, degrees: float, size: tuple[int, int]) -> Quad:
    """Turn *quad* counter-clockwise about the centre, as ``Image.rotate`` turns the pixels (y points down)."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centre = np.array(size) / 2
    return np.asarray((quad - centre) @ np.array([[cosine, -sine], [sine, cosine]]) + centre)


def _photographed(image: Image.Image, number: int) -> Image.Image:
    """Add what a camera adds: light that falls off to one side, and noise."""
    generator = np.random.default_rng([SEED, number])
    across = np.linspace(-1, 1, image.width)[None, :, None] * generator.uniform(-9, 9)
    down = np.linspace(-1, 1, image.height)[:, None, None] * generator.uniform(-9, 9)
    noise = generator.normal(0, 2.5, (image.height, image.width, 1))
    pixels = np.asarray(image, dtype=np.float64) + across + down + noise
    return Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8))
