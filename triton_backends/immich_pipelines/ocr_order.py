"""Reading order of text boxes: top to bottom, left to right; columns of vertical writing right to left."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

VERTICAL: Final = 1.5
"""A box that is so many times taller than wide holds vertical writing; RapidOCR and stock turn it upright."""

SAME_ROW: Final = 0.5
"""Boxes share a row when they overlap vertically by this part of the taller one."""

MAX_SKEW: Final = np.deg2rad(30)


def reading_order(points: Array) -> list[int]:
    """Return the indices of *points* (float [N, 4, 2]: TL, TR, BR, BL, any unit) in reading order.

    The page is turned by the skew of its lines first, so that a slightly rotated photo reads like a straight one.
    Boxes of one row, which may differ in height, go from left to right; a row of vertical columns, as in a couplet,
    goes from right to left.
    """
    if len(points) < 2:
        return list(range(len(points)))
    centres, heights, vertical = _upright(points)
    tops, bottoms = centres[:, 1] - heights / 2, centres[:, 1] + heights / 2
    rows: list[list[int]] = []
    # Each row with those of its boxes that reach down to where we are: what ended above can share a row with nothing
    # that follows, and a thousand lines are not each compared with all before them.
    reaching: list[tuple[list[int], list[int]]] = []
    for index in np.argsort(tops, kind="stable").tolist():
        reaching = [
            (row, still) for row, boxes in reaching if (still := [box for box in boxes if bottoms[box] >= tops[index]])
        ]
        for row, boxes in reversed(reaching):
            if _belongs(index, boxes, tops, bottoms, vertical):
                row.append(index)
                boxes.append(index)
                break
        else:
            rows.append([index])
            reaching.append((rows[-1], [index]))
    rows.sort(key=lambda row: float(np.mean([centres[i, 1] for i in row if not vertical[i]] or tops[row])))
    return [index for row in rows for index in _along(row, centres, vertical)]


def _upright(points: Array) -> tuple[Array, Array, Array]:
    """Return centres [N, 2], heights [N] and whether vertical [N], with the page's skew taken out."""
    points = points.astype(np.float64)
    across = (points[:, 1] - points[:, 0] + points[:, 2] - points[:, 3]) / 2
    down = (points[:, 3] - points[:, 0] + points[:, 2] - points[:, 1]) / 2
    widths, heights = np.hypot(*across.T), np.hypot(*down.T)
    vertical = heights >= VERTICAL * widths
    angle = _skew(across, down, widths, heights, vertical)
    cos, sin = np.cos(-angle), np.sin(-angle)
    centres = points.mean(axis=1) @ np.array([[cos, sin], [-sin, cos]])
    return centres, heights, vertical


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


def _belongs(index: int, row: list[int], tops: Array, bottoms: Array, vertical: Array) -> bool:
    """Tell whether a box overlaps the row's nearest member enough to stand on one line with it."""
    for other in row:
        overlap = min(bottoms[index], bottoms[other]) - max(tops[index], tops[other])
        sizes = bottoms[index] - tops[index], bottoms[other] - tops[other]
        # The last column of a vertical text is often short, and starts where the others start.
        needed = min(sizes) if vertical[index] and vertical[other] else max(sizes)
        if overlap >= SAME_ROW * needed:
            return True
    return False


def _along(row: list[int], centres: Array, vertical: Array) -> list[int]:
    columns = sum(bool(vertical[index]) for index in row)
    return sorted(row, key=lambda index: float(centres[index, 0]), reverse=2 * columns > len(row))
