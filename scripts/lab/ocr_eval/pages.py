"""Renders the exam: previews as Immich sends them, with every line's text and place known."""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from ocr_eval.drawing import (
    MARGIN,
    Colours,
    Line,
    columns,
    headed,
    long_columns,
    rotated,
    rows,
    signs,
    turned,
    verses,
)
from ocr_eval.fonts import faces, require_fonts
from ocr_eval.texts import Script, lines

SEED: Final = 20250610
SHORT_SIDE, LONG_SIDE = 1440, 1920
"""Immich's preview: the shorter side is 1440 px by default."""


class Condition(StrEnum):
    """What makes a page harder to read."""

    CLEAN = "clean"
    ROTATED = "rotated ±5°"
    BLURRED = "blurred"
    JPEG = "JPEG q50"
    FAINT = "low contrast"
    VERTICAL = "vertical"
    LEANING = "vertical, leaning ±12°"
    PIECES = "columns in pieces"
    TURNED = "turned by 90° or 180°"

    @property
    def basic(self) -> bool:
        """Whether lines of every script are set in this condition."""
        return self not in {Condition.VERTICAL, Condition.LEANING, Condition.PIECES}


@dataclass(frozen=True)
class Page:
    """One preview: its JPEG bytes, its size, and the lines on it in reading order."""

    name: str
    script: str
    """A `Script`, or a `Scene`."""
    condition: str
    """What makes it harder to read: a `Condition`, a `Defect`; nothing does on a `Scene` as it is drawn."""
    jpeg: bytes
    width: int
    height: int
    lines: Sequence[Line]


def exam() -> Iterator[Page]:
    """Yield the pages, always the same ones: every script in every condition, Chinese also in vertical columns.

    Over 400 lines on 42 pages. Same Pillow and same fonts give the same pixels (`pixel_digest`). Raises
    `FontsMissingError` when a font is not installed.
    """
    require_fonts()
    number = 0
    for script in Script:
        # One stream of lines per script, so that a phrase comes again only when all have been used.
        texts = lines(script, _random(f"{script} texts"))
        for condition in Condition:
            if condition.basic and condition is not Condition.TURNED:
                yield _page(number, script, condition, texts)
                number += 1
    for script in (Script.SIMPLIFIED, Script.TRADITIONAL):
        texts = lines(script, _random(f"{script} columns"), vertical=True)
        for _ in range(2):
            yield _page(number, script, Condition.VERTICAL, texts)
            number += 1
    # What came later stands behind: the pages before it stay as they were.
    for script in (Script.SIMPLIFIED, Script.TRADITIONAL):
        texts = lines(script, _random(f"{script} more columns"), vertical=True)
        for condition in (Condition.LEANING, Condition.LEANING, Condition.PIECES, Condition.PIECES):
            yield _page(number, script, condition, texts)
            number += 1
    for script in Script:
        yield _page(number, script, Condition.TURNED, lines(script, _random(f"{script} turned texts")))
        number += 1


def widened(page: Page, aspect: float) -> Page:
    """Return *page* with more of its edge at the right or below, so that its sides are *aspect* to 1; nothing is cut.

    Previews of the exam are 4:3, as most photos; this is how another shape of page is read.
    """
    short, long = sorted((page.width, page.height))
    if aspect * short >= long:
        long = round(aspect * short)
    else:
        short = round(long / aspect)
    width, height = (long, short) if page.width > page.height else (short, long)
    pixels = np.asarray(Image.open(io.BytesIO(page.jpeg)).convert("RGB"))
    pixels = np.pad(pixels, ((0, height - page.height), (0, width - page.width), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return replace(page, jpeg=buffer.getvalue(), width=width, height=height)


def upright() -> Iterator[Page]:
    """Yield the pages of `exam` whose lines are rows, the right way up: 346 lines on 25 pages, and four of columns."""
    return (page for page in exam() if page.condition in _UPRIGHT)


_UPRIGHT: Final = {condition for condition in Condition if condition.basic} - {Condition.TURNED} | {Condition.VERTICAL}


def set_page(name: str, kind: str, texts: Sequence[tuple[str, Script]]) -> Page:
    """Return a page of up to 12 rows, each in a face for its script; the same *name* and *texts* give the same pixels.

    Raises `FontsMissingError` when a font is not installed.
    """
    require_fonts()
    rng = _random(name)
    size = (SHORT_SIDE, LONG_SIDE) if rng.random() < 0.5 else (LONG_SIDE, SHORT_SIDE)
    colours = _colours(rng, faint=False)
    image = Image.new("RGB", size, colours.paper)
    found = signs(image, [(text, faces(script)) for text, script in texts], colours, rng, margin=MARGIN)
    buffer = io.BytesIO()
    photographed(image, sum(name.encode())).save(buffer, "JPEG", quality=80)
    return Page(name, kind, kind, buffer.getvalue(), *size, found)


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
    portrait = number % 2 or condition is Condition.PIECES
    size = (SHORT_SIDE, LONG_SIDE) if portrait else (LONG_SIDE, SHORT_SIDE)
    colours = _colours(rng, faint=condition is Condition.FAINT)
    image = Image.new("RGB", size, colours.paper)
    # Another face for each line: a face on one page only could not be told from that page's condition.
    choice = faces(script)
    # A corner of the page moves by the sine of the angle times half its length.
    most = {Condition.ROTATED: 5, Condition.LEANING: 12}.get(condition, 0)
    moved = math.ceil(math.sin(math.radians(most)) * LONG_SIDE / 2)
    if condition is Condition.VERTICAL:
        page_lines = columns(image, choice, colours, texts, rng)
    elif condition is Condition.LEANING:
        page_lines = long_columns(image, choice, colours, texts, rng, margin=MARGIN + moved)
    elif condition is Condition.PIECES:
        page_lines = (headed if number % 2 else verses)(image, choice, colours, texts, rng)
    else:
        pairs = 0.35 if script is Script.DIGITS else 0.0
        page_lines = rows(image, choice, colours, texts, rng, margin=MARGIN + moved, pairs=pairs)
    if most:
        # Leaning columns to either side.
        side = rng.choice((-1, 1)) if condition is Condition.ROTATED else 1 - 2 * (number % 2)
        angle = side * rng.uniform(most / 2, most)
        image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=colours.paper)
        page_lines = [Line(line.text, rotated(line.quad, angle, size)) for line in page_lines]
    if condition is Condition.TURNED:
        quarters = 1 + number % 2
        page_lines = [Line(line.text, turned(line.quad, quarters, size)) for line in page_lines]
        image = image.transpose(Image.Transpose.ROTATE_90 if quarters == 1 else Image.Transpose.ROTATE_180)
        size = image.size
    if condition is Condition.BLURRED:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1.6, 2.2)))
    image = photographed(image, number)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50 if condition is Condition.JPEG else 80)
    return Page(
        f"{number:02}-{script}-{condition.name.lower()}", script, condition, buffer.getvalue(), *size, page_lines
    )


def _colours(rng: random.Random, *, faint: bool) -> Colours:
    light = tuple(rng.randint(222, 255) for _ in range(3))
    dark = tuple(rng.randint(0, 70) for _ in range(3))
    paper, ink = (dark, light) if rng.random() < 0.25 else (light, dark)
    if faint:
        # About 40 of 255 levels apart: easy for an eye, close to what a faded receipt gives.
        step = rng.randint(36, 46)
        ink = tuple(level + (step if paper is dark else -step) for level in paper)
    return Colours((paper[0], paper[1], paper[2]), (ink[0], ink[1], ink[2]))


def photographed(image: Image.Image, number: int) -> Image.Image:
    """Add what a camera adds: light that falls off to one side, and noise; both by *number*."""
    generator = np.random.default_rng([SEED, number])
    across = np.linspace(-1, 1, image.width)[None, :, None] * generator.uniform(-9, 9)
    down = np.linspace(-1, 1, image.height)[:, None, None] * generator.uniform(-9, 9)
    noise = generator.normal(0, 2.5, (image.height, image.width, 1))
    pixels = np.asarray(image, dtype=np.float64) + across + down + noise
    return Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8))
