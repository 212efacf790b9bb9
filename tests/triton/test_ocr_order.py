"""The order in which boxes are read: rows, columns of vertical writing, pieces of them, blocks, tilted pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_pipelines.ocr_order import reading_order

Array = npt.NDArray[Any]
Random = np.random.Generator
Corners = list[tuple[float, float]]


def box(x: float, y: float, width: float, height: float, degrees: float = 0) -> Corners:
    """Give TL TR BR BL of a box at x, y, on a page turned about its origin."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    return [tuple(corner) for corner in corners @ turn]


def as_read(boxes: Sequence[Corners], random: Random | None = None) -> list[int]:
    """Give the order in which *boxes* are read when they come shuffled; 0, 1, 2 … is that in which they are given."""
    shuffled = (random or np.random.default_rng(0)).permutation(len(boxes)).tolist()
    return [shuffled[index] for index in reading_order(np.array([boxes[index] for index in shuffled]))]


def in_order(boxes: Sequence[Corners], random: Random | None = None) -> bool:
    return as_read(boxes, random) == list(range(len(boxes)))


# Rows


@pytest.mark.parametrize("degrees", [0, 5, -5, 12])
def test_rows_are_read_top_down_and_left_to_right(degrees: float) -> None:
    # A receipt: names on the left, prices far to the right and a bit lower, lines close together.
    rows = [(y, x, w) for y in range(0, 400, 40) for x, w in ((50, 300), (900, 90))]
    assert in_order([box(x, y + 6 * (x > 500), w, 30, degrees) for y, x, w in rows])


@pytest.mark.parametrize("degrees", [0, 4, -4, 8, -12])
def test_a_small_label_comes_before_its_large_value(degrees: float) -> None:
    assert in_order([box(*cell, degrees) for y in range(0, 800, 140) for cell in label_and_value(y)])


def label_and_value(y: float) -> list[tuple[float, float, float, float]]:
    return [(50, y + 24, 90, 20), (300, y, 360, 56)]


def test_two_small_lines_beside_a_large_one_are_two_rows() -> None:
    large, first, second = box(0, 0, 300, 100), box(400, 5, 300, 40), box(400, 55, 300, 40)
    order = as_read([large, first, second])
    assert order.index(1) < order.index(2)
    many = [box(400, 5, 100, 40), box(520, 5, 100, 40), box(400, 55, 100, 40), box(520, 55, 100, 40)]
    order = [index for index in as_read([*many, large]) if index < 4]
    assert order == [0, 1, 2, 3]


def test_a_narrow_digit_stays_in_its_row() -> None:
    row = [box(100, 100, 300, 40), box(420, 100, 18, 40), box(460, 102, 300, 40)]
    assert in_order(row)
    assert in_order([box(x, 100, width, 40) for x, width in ((100, 45), (160, 18), (200, 45), (260, 50))])


def test_numbers_of_rows_stay_in_their_rows() -> None:
    # Boxes of a single 1 are as tall as a column of two characters, and lie below each other.
    assert in_order([cell for y in range(0, 600, 60) for cell in (box(20, y, 18, 40), box(80, y, 300, 40))])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_rows_of_a_turned_page_are_rows(quarters: int) -> None:
    rows = np.array([box(x, y, width, 30) for y in range(0, 400, 40) for x, width in ((50, 300), (900, 90))])
    for _ in range(quarters):
        # Clockwise; the corners are named anew, as those of the turned page.
        rows = np.roll(np.stack([-rows[..., 1], rows[..., 0]], axis=-1), 1, axis=1)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    assert shuffled[reading_order(rows[shuffled], quarters)].tolist() == list(range(len(rows)))
    assert shuffled[reading_order(rows[shuffled])].tolist() != list(range(len(rows)))


# Columns


def test_couplet_columns_are_read_from_right_to_left() -> None:
    assert in_order([box(300, 20, 400, 80), box(800, 120, 90, 700), box(100, 130, 90, 690)])


def test_a_short_last_column_is_read_last() -> None:
    assert in_order([box(x, 100, 60, height) for x, height in ((900, 700), (800, 700), (700, 200))])


@pytest.mark.parametrize("degrees", [0, 6, -6, 12, -12])
def test_a_column_is_read_to_its_end_before_the_next(degrees: float) -> None:
    # Verses of five characters, with a blank of two between them.
    assert in_order([box(x, y, 60, 300, degrees) for x in (700, 560, 420) for y in (100, 520)])


def test_a_comma_and_what_follows_belong_to_their_column() -> None:
    pieces = [(100, 60, 240), (350, 20, 24), (390, 60, 400)]
    assert in_order([box(x + 60 - width, y, width, height) for x in (700, 600) for y, width, height in pieces])


@pytest.mark.parametrize("width", [60, 84], ids=["square", "wider than its column, as the detector has it"])
def test_a_heading_of_one_character_belongs_to_its_column(width: int) -> None:
    tops = ((75, width, 60), (190, 66, 210))
    assert in_order([box(x - w / 2, y, w, h) for x in (660, 510, 360) for y, w, h in tops])


def test_single_characters_in_a_row_of_their_own_stay_there() -> None:
    letters = [box(x, 100, 50, 50) for x in range(100, 900, 100)]
    assert in_order([*letters, box(500, 170, 50, 300)])


def test_blocks_of_columns_are_read_one_after_the_other() -> None:
    assert in_order([box(x, y, 60, 300) for y in (100, 640) for x in (700, 600, 500)])
    # Of other columns, a smaller blank does.
    upper, lower = [box(x, 100, 60, 300) for x in (700, 600, 500)], [box(x, 460, 60, 300) for x in (650, 550, 450)]
    assert in_order([*upper, *lower])


def test_a_line_between_two_blocks_parts_them() -> None:
    upper, lower = ([box(x, y, 60, 300) for x in (700, 600, 500)] for y in (100, 480))
    assert in_order([*upper, box(450, 420, 320, 40), *lower])


def test_two_blocks_beside_a_longer_one_are_not_read_across() -> None:
    right = [box(x, 100, 60, 900) for x in (1200, 1100)]
    left = [box(x, y, 60, 350) for y in (100, 650) for x in (700, 600)]
    assert in_order([*right, *left])


# Pages drawn at random


def vertical_page(random: Random) -> list[Corners]:
    """Give a page as a book or a scroll has it: title, one or two blocks of columns in pieces, page number."""
    size, degrees = random.uniform(30, 90), random.uniform(-8, 8)
    boxes: list[Corners] = []
    y = 0.0

    def line(characters: float) -> None:
        nonlocal y
        boxes.append(box(random.uniform(0, 6 * size), y, characters * size, size, degrees))
        y += size * random.uniform(1.8, 4)

    if random.random() < 0.5:
        line(random.uniform(3, 9))
    for _ in range(random.integers(1, 3)):
        pitch = size * random.uniform(1.25, 2.4)
        x, lowest = random.uniform(10, 14) * size, y
        for _ in range(random.integers(2, 8)):
            end = y + random.choice((0, 0, size, 2 * size))
            for piece in pieces(random):
                width, height = (0.35 * size, 0.4 * size) if piece == 0 else (size, piece * size)
                boxes.append(box(x + (size - width) * 0.8, end, width, height, degrees))
                end += height + size * random.uniform(0.15, 1.6)
            lowest = max(lowest, end)
            x -= pitch
        y = lowest + size * random.uniform(2.5, 5)
    if random.random() < 0.5:
        line(3)
    return boxes


def pieces(random: Random) -> list[int]:
    """Give the lengths of a column's pieces in characters, 0 for a comma; one of them at least is long."""
    found: list[int] = random.choice((0, 1, 1, 2, 3, 5, 8), random.integers(1, 5)).tolist()
    found[random.integers(len(found))] = int(random.integers(3, 9))
    return found


def page_of_rows(random: Random) -> list[Corners]:
    """Give a form or a receipt: two or three cells a row, each row's in print of different size on one base line."""
    degrees, y = random.uniform(-10, 10), 0.0
    boxes: list[Corners] = []
    for _ in range(random.integers(2, 14)):
        sizes = random.uniform(18, 60, random.integers(2, 4))
        base = y + sizes.max()
        boxes += [
            box(400 * column, base - size - (sizes.max() - size) * 0.25, random.uniform(2.2, 6) * size, size, degrees)
            for column, size in enumerate(sizes)
        ]
        y = base + random.uniform(0.3, 2) * sizes.max()
    return boxes


@pytest.mark.parametrize("page", [vertical_page, page_of_rows])
def test_a_thousand_pages_are_read_in_order(page: Callable[[Random], list[Corners]]) -> None:
    wrong = []
    for seed in range(1000):
        random = np.random.default_rng(seed)
        if not in_order(page(random), random):
            wrong.append(seed)
    assert wrong == []


@given(st.lists(st.tuples(*[st.floats(0, 1000)] * 8), max_size=12))
def test_the_order_is_always_a_permutation(corners: list[tuple[float, ...]]) -> None:
    points = np.array(corners, np.float32).reshape(-1, 4, 2)
    assert sorted(reading_order(points)) == list(range(len(points)))


@pytest.mark.parametrize("step", [20, 7], ids=["rows", "one long staircase"])
def test_a_thousand_lines_are_ordered_in_no_time(step: int) -> None:
    lines = [box(3 * index, step * index, 100, 15) for index in range(1000)]
    started = time.process_time()
    assert in_order(lines)
    assert time.process_time() - started < 0.5  # comparing each with all takes some seconds
