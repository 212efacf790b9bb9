"""What a camera or a second save does to a page: the same lines, harder to read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ocr_eval.drawing import Line
from ocr_eval.pages import Page

Array = npt.NDArray[Any]

SEED: Final = 20251127
QUALITY: Final = 92
"""JPEG quality of a page with a defect: high, so that it is the defect that is measured."""


class Defect(StrEnum):
    """What is done to a preview; amounts in levels of 0..255, lengths in pixels."""

    GAUSSIAN_6 = "Gaussian noise 6"
    GAUSSIAN_14 = "Gaussian noise 14"
    UNIFORM_4 = "uniform noise ±4"
    UNIFORM_8 = "uniform noise ±8"
    UNIFORM_12 = "uniform noise ±12"
    MOTION = "motion 7 px"
    LOW_LIGHT = "low light"
    PERSPECTIVE = "perspective"
    TWICE = "JPEG twice"


UNIFORM: Final = (Defect.UNIFORM_4, Defect.UNIFORM_8, Defect.UNIFORM_12)

NAMES: Final = {defect.name.lower().replace("_", "-"): defect for defect in Defect}
"""As the command line calls them."""


@dataclass(frozen=True)
class _Changed:
    """Pixels after a defect, and the matrix [3, 3] that moved the corners of the lines, where it did."""

    pixels: Array
    matrix: Array | None = None


def in_scenes(defect: Defect) -> str:
    """Return the category of *defect* on scenes."""
    return f"scenes, {defect}"


def spoiled(pages: Iterable[Page], defects: Iterable[Defect]) -> Iterator[Page]:
    """Yield every one of *pages* with each of *defects*, always the same pixels.

    Their ``condition`` is the defect, on scenes ``scenes, ‹defect›``: lines of other kinds are not averaged with these.
    """
    chosen = tuple(defects)
    for page in pages:
        for defect in chosen:
            yield _spoiled(page, defect)


def _spoiled(page: Page, defect: Defect) -> Page:
    pixels, lines = applied(np.asarray(Image.open(io.BytesIO(page.jpeg)).convert("RGB")), page.lines, defect, page.name)
    jpeg = _jpeg(pixels, 60 if defect is Defect.TWICE else QUALITY)
    condition = in_scenes(defect) if page.script == page.condition else defect.value
    return replace(page, name=f"{page.name}-{defect.name.lower()}", condition=condition, jpeg=jpeg, lines=lines)


def applied(pixels: Array, lines: Sequence[Line], defect: Defect, name: str) -> tuple[Array, Sequence[Line]]:
    """Return RGB *pixels* [height, width, 3] with *defect*, and the *lines* where it moves them; the same by *name*."""
    changed = _HOW[defect](pixels, np.random.default_rng([SEED, *name.encode(), *defect.encode()]))
    if (matrix := changed.matrix) is not None:
        lines = [Line(line.text, cv2.perspectiveTransform(line.quad[np.newaxis], matrix)[0]) for line in lines]
    return changed.pixels, lines


def _gaussian(sigma: float) -> Callable[[Array, np.random.Generator], _Changed]:
    return lambda pixels, rng: _Changed(_levels(pixels + rng.normal(0, sigma, pixels.shape)))


def _uniform(most: int) -> Callable[[Array, np.random.Generator], _Changed]:
    return lambda pixels, rng: _Changed(_levels(pixels + rng.integers(-most, most + 1, pixels.shape)))


def _motion(pixels: Array, rng: np.random.Generator) -> _Changed:
    """Smear along one direction, as a hand that shakes does."""
    straight = np.zeros((7, 7), np.float32)
    straight[3] = 1
    turn = cv2.getRotationMatrix2D((3, 3), rng.uniform(0, 180), 1)
    kernel = np.asarray(cv2.warpAffine(straight, turn, (7, 7), flags=cv2.INTER_LINEAR))
    return _Changed(np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum())))


def _low_light(pixels: Array, rng: np.random.Generator) -> _Changed:
    """Leave less than half of the light, and add the noise that a sensor adds to so little."""
    return _Changed(_levels(pixels * 0.4 + rng.normal(0, 3, pixels.shape)))


def _perspective(pixels: Array, rng: np.random.Generator) -> _Changed:
    """Look from aside: every corner moves inwards by up to 6 % of its side."""
    height, width = pixels.shape[:2]
    size = np.array([width, height], np.float32)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * rng.uniform(0, 0.06, (4, 2))
    matrix = cv2.getPerspectiveTransform(corners * size, ((corners + inwards) * size).astype(np.float32))
    paper = np.median(pixels[:40], axis=(0, 1)).tolist()
    warped = cv2.warpPerspective(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderValue=paper)
    return _Changed(np.asarray(warped), matrix)


def _first_of_two_saves(pixels: Array, _rng: np.random.Generator) -> _Changed:
    """Save at a low quality, then scale a little, so that the blocks of the second save are others."""
    once = np.asarray(Image.open(io.BytesIO(_jpeg(pixels, 35))))
    height, width = once.shape[:2]
    smaller = cv2.resize(once, (int(width * 0.9), int(height * 0.9)), interpolation=cv2.INTER_AREA)
    return _Changed(np.asarray(cv2.resize(smaller, (width, height), interpolation=cv2.INTER_CUBIC)))


_HOW: Final[dict[Defect, Callable[[Array, np.random.Generator], _Changed]]] = {
    Defect.GAUSSIAN_6: _gaussian(6),
    Defect.GAUSSIAN_14: _gaussian(14),
    Defect.UNIFORM_4: _uniform(4),
    Defect.UNIFORM_8: _uniform(8),
    Defect.UNIFORM_12: _uniform(12),
    Defect.MOTION: _motion,
    Defect.LOW_LIGHT: _low_light,
    Defect.PERSPECTIVE: _perspective,
    Defect.TWICE: _first_of_two_saves,
}


def _levels(pixels: Array) -> Array:
    return np.asarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _jpeg(pixels: Array, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
