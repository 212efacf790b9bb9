"""A line is cut out of its page: an upright box is a piece of the page, to the last byte what straightening gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from immich_pipelines import ocr_recognition
from immich_pipelines.ocr_batches import HEIGHT
from immich_pipelines.ocr_recognition import cut_line

RANDOM = np.random.default_rng(14)
PAGE = RANDOM.integers(0, 256, (300, 400, 3), np.uint8)


def box(left: float, top: float, right: float, bottom: float) -> npt.NDArray[np.float32]:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def straightened(monkeypatch: pytest.MonkeyPatch, corners: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Return the line as it is cut when no box counts as upright."""
    with monkeypatch.context() as patched:
        patched.setattr(ocr_recognition, "_upright", lambda *_: None)
        return cut_line(PAGE, corners)


def boxes() -> list[npt.NDArray[np.float32]]:
    edges = [box(0, 0, 400, 300), box(0, 100, 400, 101), box(399, 0, 400, 300), box(10, 299, 60, 300)]
    left, top = RANDOM.integers(0, 380, 200), RANDOM.integers(0, 280, 200)
    right, bottom = RANDOM.integers(left + 1, 401), RANDOM.integers(top + 1, 301)
    return [*edges, *(box(*sides) for sides in zip(left, top, right, bottom, strict=True))]


def test_an_upright_box_gives_the_same_bytes_without_straightening(monkeypatch: pytest.MonkeyPatch) -> None:
    for corners in boxes():
        expected = straightened(monkeypatch, corners)
        with monkeypatch.context() as patched:
            patched.setattr(ocr_recognition, "_straightened", None)  # nobody calls it
            assert np.array_equal(cut_line(PAGE, corners), expected), corners


@pytest.mark.parametrize(
    "corners",
    [
        box(20.5, 30, 120.5, 60),
        box(20, 30, 120, 60) + np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.float32),
        np.roll(box(20, 30, 120, 60), 1, axis=0),
        box(-3, 30, 120, 60),
        box(20, 270, 120, 304),
        box(350, 30, 403, 60),
        box(20, 30, 20, 60),
    ],
    ids=["between pixels", "leans", "turned", "left of the page", "below the page", "right of the page", "no width"],
)
def test_any_other_box_is_straightened(monkeypatch: pytest.MonkeyPatch, corners: npt.NDArray[np.float32]) -> None:
    expected = straightened(monkeypatch, corners)
    calls: list[object] = []
    original = ocr_recognition._straightened

    def counted(*arguments: Any) -> npt.NDArray[Any]:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(ocr_recognition, "_straightened", counted)
    found = cut_line(PAGE, corners)
    assert len(calls) == 1
    assert found.shape[0] == HEIGHT
    assert np.array_equal(found, expected)
