"""Text boxes on a page whose skew is taken out: where each lies, and which way its writing runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

VERTICAL: Final = 1.5
"""A box that is so many times taller than wide holds vertical writing; RapidOCR and stock turn it upright."""

FLAT: Final = 2.0
"""Around a single character boxes are up to 1.5 times as wide as tall."""


@dataclass(frozen=True)
class Layout:
    """Boxes as float64 [N] each, in the unit of the page, y down: edges on the straightened page and own sizes.

    ``vertical``: so much taller than wide that it is read as a column; ``flat``: so much wider than tall that it holds
    more than one character. A box that is neither is square.
    """

    left: Array
    top: Array
    right: Array
    bottom: Array
    width: Array
    height: Array
    vertical: Array
    flat: Array

    @property
    def middle(self) -> Array:
        """The y of each centre."""
        return (self.top + self.bottom) / 2

    def beside(self, one: int, others: Array) -> Array:
        """Return which of *others* (indices) overlap *one* vertically by half of the taller of the two."""
        overlap = np.minimum(self.bottom[one], self.bottom[others]) - np.maximum(self.top[one], self.top[others])
        return np.asarray(overlap >= SAME_ROW * np.maximum(self.height[one], self.height[others]))


SAME_ROW: Final = 0.5
"""Boxes share a row when they overlap vertically by this part of the taller one."""


def straightened(points: Array) -> Layout:
    """Return the layout of *points* (float [N, 4, 2]: TL, TR, BR, BL, any unit), turned by the skew of its lines."""
    points = points.astype(np.float64)
    across = (points[:, 1] - points[:, 0] + points[:, 2] - points[:, 3]) / 2
    down = (points[:, 3] - points[:, 0] + points[:, 2] - points[:, 1]) / 2
    widths, heights = np.hypot(*across.T), np.hypot(*down.T)
    vertical = heights >= VERTICAL * widths
    angle = _skew(across, down, widths, heights, vertical)
    cos, sin = np.cos(-angle), np.sin(-angle)
    x, y = (points.mean(axis=1) @ np.array([[cos, sin], [-sin, cos]])).T
    return Layout(
        left=x - widths / 2,
        top=y - heights / 2,
        right=x + widths / 2,
        bottom=y + heights / 2,
        width=widths,
        height=heights,
        vertical=vertical,
        flat=widths >= FLAT * heights,
    )


def _skew(across: Array, down: Array, widths: Array, heights: Array, vertical: Array) -> float:
    """Return the angle of the lines against the horizontal: the median, long lines counting more."""
    along_x = np.arctan2(across[:, 1], across[:, 0])
    along_y = np.arctan2(-down[:, 0], down[:, 1])
    angles, lengths = np.where(vertical, along_y, along_x), np.maximum(widths, heights)
    # The direction of a box that is almost square is noise.
    lengths = np.where(np.minimum(widths, heights) * 2 <= lengths, lengths, lengths * 1e-3)
    order = np.argsort(angles)
    middle = np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)
    angle = float(angles[order][min(int(middle), len(order) - 1)])
    return angle if abs(angle) <= MAX_SKEW else 0.0


MAX_SKEW: Final = np.deg2rad(46)
"""Corners are put in order for text that leans by at most 45 degrees; whole pixels turn a box a little."""
