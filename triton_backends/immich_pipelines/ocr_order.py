"""Reading order of text boxes: top to bottom, left to right; columns of vertical writing right to left."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_columns import blocks
from immich_pipelines.ocr_corners import turned
from immich_pipelines.ocr_layout import Layout, straightened

Array = npt.NDArray[Any]

INSIDE: Final = 0.8
"""A smaller line stands on one row with a larger one when so much of its height lies within that one's."""

SMALLER: Final = 0.25
"""And when it has at least this part of its height: a value in large print has a label, not a speck."""

STACKED: Final = 0.3
"""What has more than this part of its height within a larger line's stands beside that one, above or below others."""


def reading_order(points: Array, quarters: int = 0) -> list[int]:
    """Return the indices of *points* (float [N, 4, 2]: TL, TR, BR, BL, any unit) in reading order.

    The page is turned by the skew of its lines first, so that a slightly rotated photo reads like a straight one.
    Boxes of one row, which may differ in height, go from left to right; a block of vertical writing is read as
    `ocr_columns.blocks` says. *quarters*: how many times the text itself is turned clockwise by a quarter, 2 on a page
    that stands on its head.
    """
    if len(points) < 2:
        return list(range(len(points)))
    for _ in range(quarters):
        # The page turns counter-clockwise, to where its text is upright.
        points = turned(np.stack([points[..., 1], -points[..., 0]], axis=-1), 1)
    page = straightened(points)
    columns = blocks(page)
    rest = np.setdiff1d(np.arange(len(points)), [index for block in columns for index in block])
    parts = [
        (float(page.middle[row].mean()), sorted(row, key=lambda i: float(page.left[i]))) for row in _rows(page, rest)
    ]
    parts += [(float(page.top[block].mean()), block) for block in columns]
    return [index for _, part in sorted(parts, key=lambda part: part[0]) for index in part]


def _rows(page: Layout, boxes: Array) -> list[list[int]]:
    """Return the rows of *boxes* (indices), each in no order."""
    rows: list[list[int]] = []
    # Each row with those of its boxes that reach down to where we are: what ended above can share a row with nothing
    # that follows, and a thousand lines are not each compared with all before them.
    reaching: list[tuple[list[int], list[int]]] = []
    for index in boxes[np.argsort(page.top[boxes], kind="stable")].tolist():
        top = page.top[index]
        reaching = [
            (row, still) for row, near in reaching if (still := [box for box in near if page.bottom[box] >= top])
        ]
        for row, near in reversed(reaching):
            if page.beside(index, np.array(near)).any():
                row.append(index)
                near.append(index)
                break
        else:
            rows.append([index])
            reaching.append((rows[-1], [index]))
    return _with_smaller(page, rows)


def _with_smaller(page: Layout, rows: list[list[int]]) -> list[list[int]]:
    """Join rows of small print to those of large print that they stand beside: a label and its value.

    Not where one line of small print stands above another: these are two rows, beside something of two rows' height.
    """
    if len(rows) < 2:
        return rows
    every = np.array([index for row in rows for index in row])
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    tops, bottoms = (np.array([np.median(edge[row]) for row in rows]) for edge in (page.top, page.bottom))
    heights = bottoms - tops
    joined = np.arange(len(rows))
    for small in np.argsort(-heights, kind="stable").tolist():
        shared = np.minimum(bottoms, bottoms[small]) - np.maximum(tops, tops[small])
        larger = (
            (shared >= INSIDE * heights[small]) & (heights > heights[small]) & (heights[small] >= SMALLER * heights)
        )
        for large in np.flatnonzero(larger & (joined == np.arange(len(rows)))).tolist():
            inside = np.minimum(page.bottom[every], bottoms[large]) - np.maximum(page.top[every], tops[large])
            others = every[(owner != small) & (inside > STACKED * page.height[every])]
            if not any(_overlaps(page, index, others) for index in rows[small]):
                joined[small] = large
                break
    found: dict[int, list[int]] = {}
    for row, to in enumerate(joined.tolist()):
        found.setdefault(to, []).extend(rows[row])
    return list(found.values())


def _overlaps(page: Layout, index: int, others: Array) -> bool:
    """Tell whether a box shares more than a bit of its width with one of *others*."""
    shared = np.minimum(page.right[index], page.right[others]) - np.maximum(page.left[index], page.left[others])
    return bool((shared > 0.1 * np.minimum(page.width[index], page.width[others])).any())
