"""Image bytes to pixels, once for all pipelines, exactly as stock Immich ML does it."""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from immich_pipelines.errors import BadInput

MAX_PIXELS: Final = 100_000_000
"""Default bound on width x height, checked before a pixel is decoded (a 200-megapixel bomb needs 600 MB)."""


def open_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode *data* (JPEG, PNG, WebP, …; the first frame of an animation) into an RGB Pillow image.

    As stock does: no EXIF rotation (Immich's preview is upright already), colour profile ignored, transparency
    dropped. Raises `BadInput` when it is no image, is cut off, or has more than *max_pixels* pixels.
    """
    if not data:
        raise BadInput("the image is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Our own bound is checked below, before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            _check_size(image, max_pixels)
            return image.convert("RGB")
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(f"the {len(data)} bytes are no image in a known format") from None
    except Image.DecompressionBombError:
        raise BadInput(f"the image has more than the allowed {max_pixels} pixels") from None
    except MemoryError:
        raise  # the server's need, not the image's fault
    except Exception as error:
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, EOFError … on damaged files.
        raise BadInput(f"the image cannot be decoded: {error}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadInput(f"the image has {width}x{height} pixels, more than the allowed {max_pixels}")


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode *data* into a uint8 array [height, width, 3], RGB; see `open_rgb`."""
    return np.asarray(open_rgb(data, max_pixels=max_pixels))
