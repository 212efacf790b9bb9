"""Overlap of convex polygons, against values worked out by hand and against sampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_triton.inspect.polygons import Polygon, area, intersection, intersection_over_union, overlapping, rectangle


def turned(width: float, height: float, angle: float) -> Polygon:
    """Return a rectangle around the origin, turned by *angle* degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = rectangle(-width / 2, -height / 2, width / 2, height / 2)
    return tuple((x * cos - y * sin, x * sin + y * cos) for x, y in corners)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (rectangle(0, 0, 2, 2), 1.0),
        (rectangle(0, 0, 2, 2)[::-1], 1.0),  # counter-clockwise is the same area
        (rectangle(1, 0, 3, 2), 1 / 3),
        (rectangle(0.5, 0.5, 1.5, 1.5), 0.25),
        (rectangle(2, 0, 4, 2), 0.0),  # they touch
        (rectangle(9, 9, 10, 10), 0.0),
        (rectangle(1, 1, 1, 1), 0.0),  # no area
    ],
)
def test_upright_rectangles(other: Polygon, expected: float) -> None:
    assert intersection_over_union(rectangle(0, 0, 2, 2), other) == pytest.approx(expected)
    assert intersection_over_union(other, rectangle(0, 0, 2, 2)) == pytest.approx(expected)


def test_a_square_turned_by_45_degrees_cuts_a_regular_octagon() -> None:
    common = intersection(turned(2, 2, 0), turned(2, 2, 45))
    assert len(common) == 8
    assert abs(area(common)) == pytest.approx(8 * (math.sqrt(2) - 1))


@given(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0, 360), st.floats(-1, 1), st.floats(-1, 1))
def test_agrees_with_counting_points(width: float, height: float, angle: float, dx: float, dy: float) -> None:
    one = turned(2, 1, 20)
    other = tuple((x + dx, y + dy) for x, y in turned(width, height, angle))
    grid = np.stack(np.meshgrid(np.linspace(-3, 3, 300), np.linspace(-3, 3, 300)), axis=-1).reshape(-1, 2)

    def inside(polygon: Polygon) -> np.ndarray[Any, np.dtype[np.bool_]]:
        edges = zip(polygon, polygon[1:] + polygon[:1], strict=True)
        sides = [(bx - ax) * (grid[:, 1] - ay) - (by - ay) * (grid[:, 0] - ax) for (ax, ay), (bx, by) in edges]
        result: np.ndarray[Any, np.dtype[np.bool_]] = np.all(np.stack(sides) >= 0, axis=0)
        return result

    mine, others = inside(one), inside(other)
    expected = (mine & others).sum() / (mine | others).sum()
    assert intersection_over_union(one, other) == pytest.approx(expected, abs=0.02)


CORNERS = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.1, 3), st.floats(0.1, 3), st.floats(0, 360))


@given(st.lists(CORNERS, max_size=4), st.lists(CORNERS, max_size=4), st.sampled_from([0.01, 0.3, 0.7]))
def test_the_pairs_that_overlap_are_those_found_one_by_one(
    left: list[tuple[float, ...]], right: list[tuple[float, ...]], least: float
) -> None:
    ours, theirs = (
        [tuple((px + x, py + y) for px, py in turned(width, height, angle)) for x, y, width, height, angle in side]
        for side in (left, right)
    )
    measured = [
        (i, j, intersection_over_union(one, other)) for i, one in enumerate(ours) for j, other in enumerate(theirs)
    ]
    assert overlapping(ours, theirs, least) == [pair for pair in measured if pair[2] >= least]


def test_what_has_no_area_overlaps_nothing() -> None:
    point, square = rectangle(1, 1, 1, 1), rectangle(0, 0, 2, 2)
    assert overlapping([point, square], [point], 0.01) == []
    assert overlapping([], [square], 0.01) == overlapping([square], [], 0.01) == []
