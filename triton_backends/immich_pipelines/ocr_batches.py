"""Lines of a page to batches for the recogniser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

HEIGHT: Final = 48
"""Height of a line image, fixed by the networks."""

WIDTHS: Final = (64, 96, *range(128, 640, 64), *range(640, 1024, 128), *range(1024, 2048, 256), *range(2048, 4097, 512))
"""Allowed widths of a line image, 22 in all. Steps are a compromise: of what is computed on padding (20 µs for each
column of pixels on two cores of an AMD EPYC), of how many lines of a page have the same width and share a call (3 ms),
and of the kernels that a runtime prepares for each shape. A longer line is squeezed into the last."""

_NORMALISED: Final = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)


@dataclass(frozen=True)
class Batch:
    """Lines of one width: their places in the page's list, and float32 [N, 3, 48, width] for the recogniser."""

    lines: Sequence[int]
    images: Array


@dataclass(frozen=True)
class Limits:
    """What the recogniser takes: so many *lines* at once, of these *widths*.

    *columns*: how many columns of pixels it computes at once, padding included; a longer line goes alone. On a CPU more
    is no faster, only fuller. 0: as many as there are.
    """

    lines: int = 4
    columns: int = 4 * 320
    widths: Sequence[int] = WIDTHS

    def together(self, width: int, waiting: int) -> int:
        """Return how many of the *waiting* lines of *width* are computed at once.

        On a CPU 1, 2 or 4: OpenVINO holds 4 MB of kernels for each number of lines and width.
        """
        if not self.columns:
            return min(self.lines, waiting)
        most = min(self.lines, max(1, self.columns // width), waiting)
        return 1 << most.bit_length() - 1


def with_longer(widths: Sequence[int]) -> tuple[int, ...]:
    """Return *widths*, smallest first, and those of `WIDTHS` for a line that is longer than all of them."""
    return (*widths, *(width for width in WIDTHS if not widths or width > widths[-1]))


def batches(lines: Sequence[Array], limits: Limits) -> Iterator[Batch]:
    """Group the RGB *lines* (uint8 [48, width, 3]) into batches of equal width, those with the most work first.

    A line is padded at its right to the next of the widths, with 0 after normalisation, as RapidOCR does. RapidOCR pads
    a batch to its widest line, and every line to 320: on a page of short lines half the work, and what a line says
    depends on the others there.
    """
    groups: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(next(width for width in limits.widths if width >= line.shape[1]), []).append(index)
    parts = []
    for width, members in groups.items():
        while members:
            count = limits.together(width, len(members))
            parts.append((width, members[:count]))
            del members[:count]
    for width, chosen in sorted(parts, key=lambda part: -part[0] * len(part[1])):
        yield Batch(chosen, _normalised([lines[index] for index in chosen], width))


def _normalised(lines: Sequence[Array], width: int) -> Array:
    images = np.zeros((len(lines), 3, HEIGHT, width), np.float32)
    for image, line in zip(images, lines, strict=True):
        # RGB to BGR, channels first.
        image[:, :, : line.shape[1]] = cv2.LUT(line, _NORMALISED)[:, :, ::-1].transpose(2, 0, 1)
    return images
