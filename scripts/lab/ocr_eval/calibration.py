"""Renders the pages that an export is calibrated with: every writing, colour and condition, nothing of the exam."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from immich_triton.core.paths import PROJECT
from ocr_eval.defects import Defect, applied
from ocr_eval.drawing import PITCH, Colours, Line, rotated, set_column, set_row
from ocr_eval.fonts import Face, faces, require_fonts
from ocr_eval.pages import Page, photographed
from ocr_eval.random_texts import Writing, line
from ocr_eval.texts import Script

SEED: Final = 20251202
SHORT_SIDE, LONG_SIDE = 736, 992
"""What the detector sees of a preview of 4:3: Immich's ``maxResolution``, and a multiple of 32."""
MARGIN: Final = 28
SMALLEST, LARGEST = 22, 64
"""Pixels per em of a row."""
LONGEST: Final = 35
"""Of a row, in Chinese characters."""

PHOTOS: Final = PROJECT / "tests/data/images"

_S, _T, _J, _L, _N, _M = Writing

_JAPANESE: Final = tuple(
    Face("fonts-noto-cjk", f"opentype/noto/Noto{name}.ttc", frozenset(), 0)
    for name in ("SansCJK-Regular", "SerifCJK-Bold")
)
_FACES: Final = {
    _S: faces(Script.SIMPLIFIED),
    _T: faces(Script.TRADITIONAL),
    _J: _JAPANESE,
    _L: faces(Script.ENGLISH),
    _N: faces(Script.DIGITS),
    _M: faces(Script.MIXED),
}

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Sheet:
    """How one page is made: what is on it, and what happened to it before it was saved."""

    name: str
    writings: Sequence[Writing]
    """Of the lines, in turns."""
    paper: Colour
    inks: Sequence[Colour]
    """Of the lines, in turns."""
    quality: int
    """Of the JPEG: what makes it about 90 kB."""
    portrait: bool = True
    columns: bool = False
    photo: str = ""
    """What lies under the text, on a landscape page beside it."""
    angle: float = 0
    """Counter-clockwise, in degrees."""
    blur: float = 0
    """Radius in pixels."""
    camera: bool = True
    """Whether light is uneven and a sensor adds noise; else the page is a screenshot."""
    defect: Defect | None = None


_BLACK, _WHITE = (20, 20, 24), (246, 246, 242)
SHEETS: Final = (
    Sheet(
        "00-screenshot",
        (_S, _M, _S, _N, _L),
        (255, 255, 255),
        ((0, 0, 0), (0, 0, 0), (28, 92, 200)),
        camera=False,
        quality=60,
    ),
    Sheet(
        "01-dark",
        (_T, _L, _M, _J),
        (14, 20, 34),
        ((240, 240, 240), (255, 214, 90), (120, 220, 255)),
        portrait=False,
        quality=60,
    ),
    Sheet("02-blurred", (_J, _S, _L, _T, _N), (236, 228, 206), (_BLACK, (120, 20, 28)), blur=1.3, quality=75),
    Sheet(
        "03-noisy",
        (_N, _L, _M, _S),
        _WHITE,
        (_BLACK, (40, 60, 110)),
        portrait=False,
        defect=Defect.GAUSSIAN_6,
        quality=60,
    ),
    Sheet("04-columns", (_T, _S, _J), (232, 220, 188), ((36, 24, 20), (160, 30, 24)), columns=True, quality=65),
    Sheet(
        "05-moved",
        (_M, _T, _S, _L),
        (198, 32, 36),
        ((255, 232, 150), _WHITE),
        portrait=False,
        defect=Defect.MOTION,
        quality=85,
    ),
    Sheet(
        "06-dim",
        (_S, _N, _T, _J, _L),
        (230, 226, 214),
        (_BLACK, (30, 70, 50)),
        angle=4,
        defect=Defect.LOW_LIGHT,
        quality=82,
    ),
    Sheet(
        "07-faded",
        (_L, _T, _N, _S),
        (206, 204, 196),
        ((160, 158, 152),),
        portrait=False,
        angle=-2.5,
        defect=Defect.TWICE,
        quality=95,
    ),
    Sheet(
        "08-photo",
        (_M, _S, _L, _J, _T),
        (0, 0, 0),
        (_WHITE, (255, 226, 80), (150, 255, 200)),
        photo="astronaut.jpg",
        quality=50,
    ),
    Sheet(
        "09-poster",
        (_S, _L, _N, _J, _T),
        (34, 96, 84),
        (_WHITE, (255, 200, 120)),
        portrait=False,
        photo="cat_no_text_no_face.jpg",
        defect=Defect.PERSPECTIVE,
        quality=65,
    ),
)


def calibration_pages() -> Iterator[Page]:
    """Yield the pages, always the same ones, with what is on them.

    Same Pillow and same fonts give the same pixels, but for what OpenCV rounds otherwise on another CPU. Raises
    `FontsMissingError` when a font is not installed.
    """
    require_fonts()
    for number, sheet in enumerate(SHEETS):
        yield _rendered(sheet, number)


def _rendered(sheet: Sheet, number: int) -> Page:
    rng = random.Random(f"{SEED} {sheet.name}")  # noqa: S311 - nothing here is secret
    size = (SHORT_SIDE, LONG_SIDE) if sheet.portrait else (LONG_SIDE, SHORT_SIDE)
    image = Image.new("RGB", size, sheet.paper)
    right = size[0]
    if sheet.photo:
        right = _add_photo(image, PHOTOS / sheet.photo, under=sheet.portrait)
    lines: Sequence[Line] = (_columns if sheet.columns else _rows)(image, sheet, right, rng)
    if sheet.angle:
        image = image.rotate(sheet.angle, Image.Resampling.BICUBIC, fillcolor=sheet.paper)
        lines = [Line(found.text, rotated(found.quad, sheet.angle, size)) for found in lines]
    if sheet.blur:
        image = image.filter(ImageFilter.GaussianBlur(sheet.blur))
    if sheet.camera:
        image = photographed(image, SEED + number)
    pixels = np.asarray(image)
    if sheet.defect:
        pixels, lines = applied(pixels, lines, sheet.defect, sheet.name)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=sheet.quality, optimize=True)
    return Page(sheet.name, "calibration", sheet.name, buffer.getvalue(), *size, lines)


def _add_photo(image: Image.Image, path: Path, *, under: bool) -> int:
    """Lay a photo's middle under the whole page, dimmed, or into its right; returns where the room for text ends."""
    photo = Image.open(path).convert("RGB")
    if under:
        image.paste(ImageOps.fit(photo, image.size, Image.Resampling.LANCZOS).point(lambda level: level * 0.6))
        return image.width
    left = int(image.width * 0.64)
    place = (image.width - left - 60, image.height - 160)
    image.paste(ImageOps.fit(photo, place, Image.Resampling.LANCZOS), (left, 80))
    return left


def _rows(image: Image.Image, sheet: Sheet, right: int, rng: random.Random) -> list[Line]:
    """Set rows of all sizes until the page is full."""
    margin = _margin(sheet)
    room, bottom = right - 2 * margin, image.height - margin
    top, found = float(margin), list[Line]()
    # A glyph ends up to 1.4 sizes below the top of its row.
    while (highest := (bottom - top) / 1.4) > SMALLEST:
        # Small print comes more often.
        size = min(int(SMALLEST * (LARGEST / SMALLEST) ** rng.random() ** 1.15), int(highest))
        writing = sheet.writings[len(found) % len(sheet.writings)]
        text = line(writing, rng, min(LONGEST, room // size))
        found.append(
            set_row(
                image, rng.choice(_FACES[writing]), size, text, _colours(sheet, len(found)), (margin, room), top, rng
            )
        )
        top += size * rng.uniform(1.4, 1.7)
    return found


def _columns(image: Image.Image, sheet: Sheet, right: int, rng: random.Random) -> list[Line]:
    """Set columns from the right, most as long as the page is high."""
    margin = _margin(sheet)
    x, found = float(right - margin), list[Line]()
    while x > margin + SMALLEST:
        size = min(rng.randint(26, 56), int(x - margin))
        writing = sheet.writings[len(found) % len(sheet.writings)]
        top = margin + rng.randint(0, 90)
        text = line(writing, rng, int((image.height - margin - top) / (PITCH * size)), bare=True)
        place = int(x - size), top
        found.append(set_column(image, rng.choice(_FACES[writing]), size, [text], _colours(sheet, len(found)), place))
        x -= size * rng.uniform(1.5, 1.8)
    return found


def _margin(sheet: Sheet) -> int:
    # A corner moves by the sine of the angle times half the other side.
    return MARGIN + math.ceil(math.sin(math.radians(abs(sheet.angle))) * LONG_SIDE / 2)


def _colours(sheet: Sheet, number: int) -> Colours:
    return Colours(sheet.paper, sheet.inks[number % len(sheet.inks)])
