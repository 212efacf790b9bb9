"""Areas and overlaps of convex polygons: text lines are tilted, and upright rectangles would overstate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Point = tuple[float, float]
Polygon = tuple[Point, ...]


def rectangle(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    """Return the corners of an upright rectangle, clockwise from the top left (y grows downwards)."""
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def area(polygon: Polygon) -> float:
    """Return the signed area (shoelace formula): positive when the corners run clockwise on a screen."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True)) / 2


def intersection(left: Polygon, right: Polygon) -> Polygon:
    """Return the common part of two convex polygons (Sutherland and Hodgman 1974); empty when there is none."""
    left, right = (polygon if area(polygon) > 0 else polygon[::-1] for polygon in (left, right))
    result: list[Point] = list(left)
    for (ax, ay), (bx, by) in zip(right, right[1:] + right[:1], strict=True):
        inside = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in result]
        clipped: list[Point] = []
        for index, (x, y) in enumerate(result):
            before, (px, py) = inside[index - 1], result[index - 1]
            now = inside[index]
            if (before < 0) != (now < 0):
                share = before / (before - now)
                clipped.append((px + share * (x - px), py + share * (y - py)))
            if now >= 0:
                clipped.append((x, y))
        result = clipped
    return tuple(result)


def intersection_over_union(left: Polygon, right: Polygon) -> float:
    """Return the overlap of two convex polygons, 0..1; 0 when one of them has no area."""
    common = abs(area(intersection(left, right)))
    union = abs(area(left)) + abs(area(right)) - common
    return common / union if union > 0 else 0.0


def overlapping(ours: Sequence[Polygon], theirs: Sequence[Polygon], least: float) -> list[tuple[int, int, float]]:
    """Return the pairs of indices whose `intersection_over_union` is *least* or more (above 0), with that overlap.

    Of the pairs of lines on a page hardly any overlap: the bounding rectangles of all are compared at once, and only
    what is left is clipped.
    """
    if not ours or not theirs:
        return []
    mine, others = _bounds(ours), _bounds(theirs)
    sides = np.minimum(mine[:, None, 2:], others[None, :, 2:]) - np.maximum(mine[:, None, :2], others[None, :, :2])
    common = np.prod(sides.clip(min=0), axis=-1)
    # The common part is no larger than that of the rectangles, and both together are no smaller than the larger one.
    areas = [np.array([abs(area(polygon)) for polygon in polygons]) for polygons in (ours, theirs)]
    possible = common >= (least - 1e-9) * np.maximum(areas[0][:, None], areas[1][None, :])
    pairs = np.argwhere(possible & (common > 0)).tolist()
    measured = [(i, j, intersection_over_union(ours[i], theirs[j])) for i, j in pairs]
    return [pair for pair in measured if pair[2] >= least]


def _bounds(polygons: Sequence[Polygon]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return left, top, right and bottom of every polygon, [N,4]."""
    corners = [np.asarray(polygon, dtype=float) for polygon in polygons]
    return np.array([[*points.min(axis=0), *points.max(axis=0)] for points in corners])
