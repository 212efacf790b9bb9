"""Image bytes to pixels, once for all pipelines, exactly as stock Immich ML does it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from immich_pipelines.decoding.pillow import open_rgb
from immich_pipelines.decoding.scan import MAX_PIXELS, size_of

__all__ = ["MAX_PIXELS", "Decode", "decode_rgb", "open_rgb", "size_of"]


class Decode(Protocol):
    """Turns image bytes into uint8 [height, width, 3], RGB: `decode_rgb`, or `DecodingPool.decode`."""

    def __call__(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
        """Decode *data*; raises `BadInput` for what is the image's fault."""


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode *data* into a uint8 array [height, width, 3], RGB, in this process; see `open_rgb`.

    Pipelines have it done by `decoding.client` instead, in a process that may die over it.
    """
    return np.asarray(open_rgb(data, max_pixels=max_pixels))
