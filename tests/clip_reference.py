"""Runs in the export environment: what cn_clip in PyTorch makes of the stand-ins' images and texts.

``clip_reference.py FOLDER RESULT.npz SEED MODEL...``. Beside the right answers it gives wrong ones, made by the
mistakes that an image pipeline typically has: the tests must tell these from the right ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cn_clip.clip
import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, Resize

from immich_triton.export.clip import torch_export as clip_torch
from immich_triton.export.clip.models import CLIP_MODELS


def bgr(image: Image.Image, _size: int) -> Image.Image:
    """Swap red and blue."""
    return Image.merge("RGB", image.split()[::-1])


def bilinear(image: Image.Image, size: int) -> Image.Image:
    """Resize with another filter; the transform then has nothing left to resize."""
    result: Image.Image = Resize((size, size), interpolation=InterpolationMode.BILINEAR)(image)
    return result


MISTAKES: Final[dict[str, Callable[[Image.Image, int], Image.Image]]] = {
    "bgr": bgr,
    "flipped": lambda image, _size: ImageOps.flip(image),
    "bilinear": bilinear,
}


def main() -> None:
    """Run the program."""
    folder, result, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    texts = (folder / "texts.txt").read_text(encoding="utf-8").split("\n")
    images = [Image.open(path).convert("RGB") for path in sorted((folder / "images").iterdir())]
    arrays: dict[str, Any] = {}
    for name in sys.argv[4:]:
        spec = CLIP_MODELS[name]
        model = clip_torch.build(spec, None, seed)
        transform = cn_clip.clip.image_transform(spec.image_size)
        tensors = torch.stack([transform(image) for image in images])
        tokens = cn_clip.clip.tokenize(texts)
        changed = tokens.clone()
        # One token of each text, the first after [CLS].
        changed[:, 1] = torch.where(tokens[:, 1] == 3000, 3001, 3000)
        with torch.no_grad():
            arrays[f"{name}/image"] = encode(model.encode_image, tensors)
            arrays[f"{name}/text"] = encode(model.encode_text, tokens)
            arrays[f"{name}/text changed"] = encode(model.encode_text, changed)
            for mistake, spoil in MISTAKES.items():
                spoilt = torch.stack([transform(spoil(image, spec.image_size)) for image in images])
                arrays[f"{name}/image {mistake}"] = encode(model.encode_image, spoilt)
        arrays[f"{name}/tensor"] = tensors.numpy()
        arrays[f"{name}/tokens"] = tokens.numpy()
    np.savez(result, **arrays)


def encode(encoder: Callable[[Any], Any], inputs: Any) -> Any:
    """Return normalised embeddings, as cn_clip's own forward makes them."""
    features = torch.cat([encoder(part) for part in inputs.split(4)])
    return (features / features.norm(dim=-1, keepdim=True)).numpy()


if __name__ == "__main__":
    main()
