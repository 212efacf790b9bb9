"""Areas and overlaps of convex polygons: text lines are tilted, and upright rectangles would overstate them."""

from __future__ import annotations

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
    if _apart(left, right):
        return 0.0
    common = abs(area(intersection(left, right)))
    union = abs(area(left)) + abs(area(right)) - common
    return common / union if union > 0 else 0.0


def _apart(left: Polygon, right: Polygon) -> bool:
    """Whether the bounding rectangles do not touch: most pairs of lines on a page, told without clipping."""
    return any(
        max(point[axis] for point in one) < min(point[axis] for point in other)
        for axis in (0, 1)
        for one, other in ((left, right), (right, left))
    )
