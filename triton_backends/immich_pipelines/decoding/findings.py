"""What a look at an image file tells before anything of it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAVY_WORK: Final = 32_000_000
"""Pixels times passes from which an image is heavy: about 0.3 s of one core. A progressive preview of 2.7 megapixels
(10 scans) is below it, as is a photo of 24 megapixels in one pass."""


@dataclass(frozen=True)
class Scan:
    """What a file says of itself. ``format`` is Pillow's name of it, ``width`` and ``height`` are in pixels.

    ``passes``: how often the decoder goes over the pixels (or costs as if it did). ``decoded``: the pixels that it has
    to decode, where that is more than the picture has (tiles reach over its edge).
    """

    format: str
    width: int
    height: int
    passes: int = 1
    decoded: int = 0

    @property
    def pixels(self) -> int:
        """How many pixels are decoded at least once."""
        return max(self.width * self.height, self.decoded)

    @property
    def work(self) -> int:
        """Pixels times passes: what decoding costs."""
        return self.pixels * self.passes

    @property
    def heavy(self) -> bool:
        """Whether it takes so long that it must not take the last process from ordinary photos."""
        return self.work > HEAVY_WORK
