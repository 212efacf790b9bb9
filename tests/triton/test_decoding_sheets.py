"""Memory files for pixels: one is nobody else's while its pixels are in use, then it serves the next image."""

from __future__ import annotations

import os

import numpy as np
import pytest

from immich_pipelines.decoding.sheets import LARGEST_KEPT, MOST_KEPT, Sheet, Shelf


def written(sheet: Sheet, content: bytes) -> Sheet:
    os.pwrite(sheet.descriptor, content, 0)
    return sheet


def test_what_was_written_is_read_behind_its_header() -> None:
    pixels = Shelf().lend(written(Sheet(), b"head" + bytes(range(12)) + b"of an image before"), 4, (2, 2, 3))
    np.testing.assert_array_equal(pixels, np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0] = 1


def test_a_sheet_is_free_when_nobody_has_a_view_of_its_pixels() -> None:
    shelf, sheet = Shelf(), written(Sheet(), bytes(12))
    pixels = shelf.lend(sheet, 0, (2, 2, 3))
    view = pixels[1:].transpose(2, 0, 1)[::-1]
    del pixels
    other = shelf.take()
    assert other is not sheet
    del view
    assert shelf.take() is sheet


def test_the_next_image_may_be_larger_or_smaller() -> None:
    shelf = Shelf()
    for count in (5_000, 9_000, 10):
        sheet = written(shelf.take(), bytes([count % 251]) * count)
        assert (shelf.lend(sheet, 0, (count, 1, 1)) == count % 251).all()
        assert shelf.take() is sheet
        shelf.put(sheet)


def test_few_are_kept_and_no_large_one() -> None:
    shelf = Shelf()
    large = Sheet()
    os.truncate(large.descriptor, LARGEST_KEPT + 1)
    shelf.put(large)
    sheets = [Sheet() for _ in range(MOST_KEPT + 1)]
    for sheet in sheets:
        shelf.put(sheet)
    taken = [shelf.take() for _ in range(MOST_KEPT + 1)]
    assert {*taken} - {*sheets[:MOST_KEPT]} == {taken[-1]}
    assert taken[-1] not in (large, sheets[-1])


def test_memory_is_given_back_but_for_that_in_use() -> None:
    shelf = Shelf()
    pixels = shelf.lend(written(Sheet(), b"\7" * 12), 0, (2, 2, 3))
    free = Sheet()
    descriptor = free.descriptor
    shelf.put(free)
    del free
    shelf.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert (pixels == 7).all()
