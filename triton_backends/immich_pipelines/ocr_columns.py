"""Columns of vertical writing: which boxes are pieces of one, and in which order columns are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.ocr_layout import Layout

Array = npt.NDArray[Any]

SAME_COLUMN: Final = 0.5
"""Boxes are pieces of one column when they overlap horizontally by this part of the narrower one."""

WIDER: Final = 1.6
"""A single character above or below a column is at most so many times as wide as it."""

BLANK: Final = 2.25
"""The longest blank inside a column, in widths of a column. Poems have two characters of it between verses; more of it
across all columns parts two blocks."""

STAGGERED: Final = 0.75
"""The blank that parts two blocks whose columns do not stand below each other, in widths of a column."""

APART: Final = 3.0
"""The blank beside a column that parts two blocks, in widths of a column."""

SLENDER: Final = 2.5
"""A box that is so many times taller than wide is no single character."""


def blocks(page: Layout) -> list[list[int]]:
    """Return the blocks of vertical writing on *page* from top to bottom, each as indices in reading order.

    In a block columns go from right to left, and the pieces of each, which a comma or a blank parted, from top to
    bottom. A box that stands alone above or below a column, such as a heading of one character, is a piece of it.
    Boxes in none of the blocks are no vertical writing.
    """
    members = np.array(sorted(_pieces(page)), int)
    if len(members) == 0:
        return []
    others = np.setdiff1d(np.flatnonzero(page.flat), members)
    return [
        [index for block in _across(page, stripe, others) for index in block] for stripe in _down(page, members, others)
    ]


def _pieces(page: Layout) -> set[int]:
    """Return the boxes that are columns, or parts of one."""
    flat = np.flatnonzero(page.flat)
    square = np.flatnonzero(~page.flat & ~page.vertical)
    # A narrow digit is tall, and stands in a row of text all the same.
    columns = [
        index
        for index in np.flatnonzero(page.vertical).tolist()
        if not page.beside(index, flat).any() and not _stands_in_a_row(page, index, square)
    ]
    found = set(columns) | _attached(page, columns, flat)
    return {index for index in found if page.vertical[index] or not _left_alone(page, index, square, found)}


def _left_alone(page: Layout, index: int, square: Array, found: set[int]) -> bool:
    """Tell whether a box is one of a row of single characters, few of which happen to stand above a column."""
    row = square[page.beside(index, square)].tolist()
    return 2 * sum(other in found for other in row) < len(row)


def _stands_in_a_row(page: Layout, index: int, square: Array) -> bool:
    """Tell whether a box of one narrow character has neighbours of its height."""
    if page.height[index] >= SLENDER * page.width[index]:
        return False
    taller = page.height[index] / page.height[square]
    return bool((page.beside(index, square) & (taller < 1.5) & (taller > 1 / 1.5)).any())


def _attached(page: Layout, columns: Sequence[int], flat: Array) -> set[int]:
    """Return the boxes that are no columns, and stand above or below one, or another such box, as its piece."""
    free = np.array(
        [
            index
            for index in np.flatnonzero(~page.vertical).tolist()
            if not (page.beside(index, flat) & (flat != index)).any()
        ],
        int,
    )
    found: set[int] = set()
    width = page.width.copy()
    reached = list(columns)
    while reached and len(free):
        index = reached.pop()
        overlap = np.minimum(page.right[index], page.right[free]) - np.maximum(page.left[index], page.left[free])
        gap = np.maximum(page.top[free] - page.bottom[index], page.top[index] - page.bottom[free])
        near = np.where(page.flat[free], 1.0, BLANK) * width[index]
        belongs = (
            (overlap >= SAME_COLUMN * np.minimum(page.width[index], page.width[free]))
            & (page.width[free] <= WIDER * width[index])
            & (gap <= near)
        )
        width[free[belongs]] = width[index]
        reached += free[belongs].tolist()
        found |= set(free[belongs].tolist())
        free = free[~belongs]
    return found


def _down(page: Layout, members: Array, others: Array) -> list[Array]:
    """Part *members* where a blank crosses all their columns; *others* are lines of text that may lie in it."""
    members = members[np.argsort(page.top[members], kind="stable")]
    lowest, tops = np.maximum.accumulate(page.bottom[members])[:-1], page.top[members][1:]
    size = _size(page, members)
    parts: list[Array] = []
    for run in np.split(members, np.flatnonzero(tops > lowest) + 1):
        if parts:
            above, below = float(page.bottom[parts[-1]].max()), float(page.top[run].min())
            if not (
                below - above >= BLANK * size
                or _line_between(page, above, below, members, others)
                or (below - above >= STAGGERED * size and not _below_each_other(page, parts[-1], run))
            ):
                parts[-1] = np.concatenate([parts[-1], run])
                continue
        parts.append(run)
    return parts


def _line_between(page: Layout, top: float, bottom: float, members: Array, others: Array) -> bool:
    middle = page.middle[others]
    crossing = (page.left[others] < page.right[members].max()) & (page.right[others] > page.left[members].min())
    return bool(((middle > top) & (middle < bottom) & crossing).any())


def _below_each_other(page: Layout, above: Array, below: Array) -> bool:
    """Tell whether the columns of two blocks continue each other: most of the fewer have one that they overlap."""
    few, many = sorted((above, below), key=len)
    overlap = np.minimum.outer(page.right[few], page.right[many]) - np.maximum.outer(page.left[few], page.left[many])
    narrower = np.minimum.outer(page.width[few], page.width[many])
    return bool((overlap >= 0.7 * narrower).any(axis=1).mean() > 0.6)


def _across(page: Layout, members: Array, others: Array) -> Iterator[list[int]]:
    """Yield the blocks of *members* from right to left, each in reading order, those within one from top to bottom."""
    by_right = members[np.argsort(-page.right[members], kind="stable")]
    leftmost = np.minimum.accumulate(page.left[by_right])
    wide = leftmost[:-1] - page.right[by_right[1:]] >= APART * _size(page, members)
    parts = np.split(by_right, np.flatnonzero(wide) + 1)
    for part in parts:
        stripes = _down(page, part, others) if len(parts) > 1 else [part]
        for stripe in stripes:
            if len(stripes) > 1:
                yield from _across(page, stripe, others)
            else:
                yield [index for column in _columns(page, stripe) for index in column]


def _columns(page: Layout, members: Array) -> list[list[int]]:
    """Return the columns of one block from right to left, each with its pieces from top to bottom."""
    columns: list[list[int]] = []
    # The widest piece of a column says where it is: a comma stands at its edge.
    for index in members[np.argsort(-page.width[members] * page.height[members], kind="stable")].tolist():
        firsts = np.array([column[0] for column in columns], int)
        overlap = np.minimum(page.right[index], page.right[firsts]) - np.maximum(page.left[index], page.left[firsts])
        share = overlap / np.minimum(page.width[index], page.width[firsts])
        if len(firsts) and share.max() >= SAME_COLUMN:
            columns[int(share.argmax())].append(index)
        else:
            columns.append([index])
    columns.sort(key=lambda column: -float(page.left[column[0]] + page.right[column[0]]))
    return [sorted(column, key=lambda index: float(page.top[index])) for column in columns]


def _size(page: Layout, members: Array) -> float:
    """Return the width of a usual column among *members*."""
    tall = members[page.vertical[members]]
    return float(np.median(page.width[tall if len(tall) else members]))
