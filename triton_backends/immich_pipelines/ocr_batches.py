"""Lines of a page to batches for the recogniser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

HEIGHT: Final = 48
"""Height of a line image, fixed by the networks."""

WIDTHS: Final = (
    *range(64, 320, 32),
    *range(320, 640, 64),
    *range(640, 1024, 128),
    *range(1024, 2048, 256),
    *range(2048, 4097, 512),
)
"""Allowed widths of a line image, 25 in all: close enough that little is computed on padding, few enough that a runtime
that prepares its kernels for every shape is soon done. A longer line is squeezed into the last."""

CALL: Final = 150
"""What a call of the network costs beside its pixels, in columns of these: OpenVINO gets ready for another shape, and
the tensors go through Triton. On two cores of an AMD EPYC 20 µs a column and 3 ms a call."""


@dataclass(frozen=True)
class Batch:
    """Lines of one width: their places in the page's list, and float32 [N, 3, 48, width] for the recogniser."""

    lines: Sequence[int]
    images: Array


@dataclass(frozen=True)
class Limits:
    """What the recogniser takes: so many *lines* at once, of these *widths*.

    *columns*: how many columns of pixels it computes at once, padding included; a longer line goes alone. On a CPU a
    batch of more is no faster, only fuller. 0: as many as there are, and only lines of one width together: a batch on a
    GPU is padded to one of the sizes in its table as it is.
    """

    lines: int = 4
    columns: int = 4 * 320
    widths: Sequence[int] = WIDTHS


def with_longer(widths: Sequence[int]) -> tuple[int, ...]:
    """Return *widths*, smallest first, and those of `WIDTHS` for a line that is longer than all of them."""
    return (*widths, *(width for width in WIDTHS if not widths or width > widths[-1]))


def batches(lines: Sequence[Array], limits: Limits) -> Iterator[Batch]:
    """Group the RGB *lines* (uint8 [48, width, 3]) into batches, the widest first.

    A line is padded at its right to the width of its batch, with 0 after normalisation, as RapidOCR does. RapidOCR pads
    a batch to its widest line, and every line to 320: on a page of short lines half the work.
    """
    order = sorted(range(len(lines)), key=lambda index: -lines[index].shape[1])
    widths = [next(width for width in limits.widths if width >= lines[index].shape[1]) for index in order]
    begin = 0
    for end in _ends(widths, limits):
        chosen = order[begin:end]
        yield Batch(chosen, _normalised([lines[index] for index in chosen], widths[begin]))
        begin = end


def _ends(widths: Sequence[int], limits: Limits) -> list[int]:
    """Return where each batch ends, for the least work in all; *widths* fall.

    Batches are of 1, 2 or 4 lines, since each size is a shape that kernels are prepared for; any number where none are.
    """
    sizes = [size for size in (1, 2, 4) if size <= limits.lines] if limits.columns else range(1, limits.lines + 1)
    # The least work for all lines up to here, and how many the last batch has.
    least, last = [0.0], [0]
    for end in range(1, len(widths) + 1):
        ways = [(least[end - size] + _work(widths, end - size, size, limits), -size) for size in sizes if size <= end]
        work, size = min(ways)
        least.append(work)
        last.append(-size)
    ends = []
    end = len(widths)
    while end:
        ends.append(end)
        end -= last[end]
    return ends[::-1]


def _work(widths: Sequence[int], begin: int, size: int, limits: Limits) -> float:
    width = widths[begin]
    if limits.columns:
        return CALL + size * width if size == 1 or size * width <= limits.columns else np.inf
    return size * width if widths[begin + size - 1] == width else np.inf


def _normalised(lines: Sequence[Array], width: int) -> Array:
    images = np.zeros((len(lines), 3, HEIGHT, width), np.float32)
    for image, line in zip(images, lines, strict=True):
        # RGB to BGR, channels first.
        np.divide(line[:, :, ::-1].transpose(2, 0, 1), np.float32(127.5), out=image[:, :, : line.shape[1]])
        image[:, :, : line.shape[1]] -= 1
    return images
