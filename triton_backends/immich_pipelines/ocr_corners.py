"""The four corners of text boxes: which of them is which, however the text leans."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def in_order(corners: Array) -> Array:
    """Return the corners of convex boxes (number [..., 4, 2], y down, in any order) as float32 TL, TR, BR, BL.

    They go round the box clockwise, from the corner whose next edge points most nearly to the right: so "left" is the
    side where the text begins as long as it leans by less than 45 degrees, whatever the box's shape. RapidOCR takes
    the two leftmost corners for the left side, which in a column of 24 characters are both at the bottom from 3
    degrees on: it is read from below, and lost.
    """
    corners = corners.astype(np.float32)
    from_centre = corners - corners.mean(axis=-2, keepdims=True)
    # With y down, growing angles go clockwise.
    angles = np.arctan2(from_centre[..., 1], from_centre[..., 0])
    ring = _chosen(corners, np.argsort(angles, axis=-1, kind="stable"))
    along = np.roll(ring, -1, axis=-2) - ring
    # An edge with the one opposite: rounding to whole pixels turns a short edge by some degrees.
    along = along - np.roll(along, -2, axis=-2)
    lengths = np.hypot(along[..., 0], along[..., 1])
    right = np.divide(along[..., 0], lengths, out=np.full(lengths.shape, -1, np.float32), where=lengths > 0)
    return _chosen(ring, (np.argmax(right, axis=-1)[..., np.newaxis] + np.arange(4)) % 4)


def _chosen(corners: Array, which: Array) -> Array:
    return np.take_along_axis(corners, which[..., np.newaxis], axis=-2)


def clipped(corners: Array, height: int, width: int) -> Array:
    """Return *corners* (float [..., 2]) moved to whole pixels in a page of *height* and *width*, as RapidOCR does."""
    inside: Array = np.trunc(np.clip(corners, 0, np.array([width - 1, height - 1], np.float32)))
    return inside.astype(np.float32)


def turned(corners: Array, quarters: int) -> Array:
    """Return *corners* (float [..., 4, 2]: TL, TR, BR, BL) as text sees them that is turned clockwise by *quarters*.

    Of a box whose text stands on its head (2), the first corner then is the one at the bottom right, where that text
    begins.
    """
    return np.roll(corners, -quarters, axis=-2)
