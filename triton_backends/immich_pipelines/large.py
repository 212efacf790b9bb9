"""Which images are large: they take so long that they come last in their batch, so that no ordinary photo waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from immich_pipelines.decode import size_of

PIXELS: Final = 8_000_000
"""More pixels than that make an image large; Immich's previews have 2 to 5 million."""

RATIO: Final = 6
"""So does a longer side of more than so many times the shorter one: OCR does not shrink a screenshot of a whole page,
because its shorter side is what the detector's resolution is about."""


def is_large(data: bytes) -> bool:
    """Tell whether the image *data* is large. What is no image is not: it is soon refused. Never raises."""
    try:
        height, width = size_of(data)
    except Exception:  # noqa: BLE001 - the whole batch is sorted by this; the decoder tells the one image what is wrong
        return False
    return height * width > PIXELS or max(height, width) > RATIO * min(height, width)


def ordinary_first[T](jobs: Sequence[T], image: Callable[[T], bytes]) -> tuple[list[int], list[int]]:
    """Return the indices of the *jobs* with ordinary images and of those with large ones; *image* gives the bytes."""
    ordinary: list[int] = []
    large: list[int] = []
    for index, job in enumerate(jobs):
        (large if is_large(image(job)) else ordinary).append(index)
    return ordinary, large
