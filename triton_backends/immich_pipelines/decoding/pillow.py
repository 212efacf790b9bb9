"""Image bytes to pixels with Pillow, exactly as stock Immich ML does it. Imports neither numpy nor anything larger."""

from __future__ import annotations

import io
import warnings

from PIL import Image, UnidentifiedImageError

from immich_pipelines.decoding.findings import Scan
from immich_pipelines.decoding.scan import MAX_PIXELS, check_size, scan
from immich_pipelines.errors import BadInput


def open_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode *data* (a format of `scan.FORMATS`; the first frame of an animation) into an RGB Pillow image.

    As stock does: no EXIF rotation (Immich's preview is upright already), colour profile ignored, transparency
    dropped. Raises `BadInput` when it is no image, is cut off, has more than *max_pixels* pixels, or asks for more
    than a photo may.
    """
    return decode(data, scan(data, max_pixels=max_pixels), max_pixels)


def decode(data: bytes, found: Scan, max_pixels: int) -> Image.Image:
    """Decode *data*, which `scan` has looked at and *found* harmless; otherwise like `open_rgb`."""
    try:
        with warnings.catch_warnings():
            # Sizes are bounded here; and what Pillow thinks of the metadata of a stranger's file is of no use.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=[found.format])
            check_size(*image.size, max_pixels)  # as Pillow read it, which may be otherwise
            image.load()
            # Converting an RGB image copies it, and that costs twice what decoding a preview does: new pages for both.
            return image if image.mode == "RGB" else image.convert("RGB")
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(f"the image cannot be decoded: its {len(data)} bytes are no whole {found.format} file") from None
    except Image.DecompressionBombError:
        raise BadInput(f"the image has more than the allowed {max_pixels} pixels") from None
    except MemoryError:
        raise  # the server's need, or beyond what the process may take: the caller knows
    except Exception as error:
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, EOFError … on damaged files.
        raise BadInput(f"the image cannot be decoded: {error}") from error


def squeeze(image: Image.Image, side: int) -> Image.Image:
    """Return the RGB *image* as a square of *side* pixels, not cropped, by Pillow's bicubic filter.

    As ``torchvision.transforms.Resize((side, side))`` does it on Pillow images.
    """
    return image.resize((side, side), Image.Resampling.BICUBIC)
