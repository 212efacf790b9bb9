"""An image as Chinese-CLIP's image encoders take it: ``cn_clip.clip.image_transform`` without torch.

Runs on Python 3.11 too: the export script compares it with the original.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from immich_pipelines.decoding.pillow import squeeze

_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD: Final = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
"""Of the pixels that CLIP was trained on, per channel R, G, B, in 0..1 (``cn_clip/clip/utils.py``)."""

_LEVELS: Final = ((np.arange(256, dtype=np.float32) / np.float32(255))[None] - _MEAN[:, None]) / _STD[:, None]
"""[3, 256]: what each 8-bit level of each channel becomes. The same float32 operations as ToTensor and Normalize, done
once per level instead of once per pixel."""


def image_transform(image: Image.Image, size: int) -> npt.NDArray[np.float32]:
    """Return the RGB *image* as float32 [3, size, size], normalised.

    Squeezed to a square, not cropped: Pillow's bicubic filter, as ``torchvision.transforms.Resize((size, size))`` uses
    it on Pillow images. `ValueError` when the image is not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, got {image.mode}")
    return normalise(np.asarray(squeeze(image, size)))


def normalise(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return *pixels* uint8 [height, width, 3], RGB, as float32 [3, height, width], as CLIP was trained on them."""
    tensor = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel in range(3):
        np.take(_LEVELS[channel], pixels[..., channel], out=tensor[channel], mode="clip")
    return tensor
