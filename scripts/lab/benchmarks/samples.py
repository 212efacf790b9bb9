"""What is sent: images and texts, each with a name."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from immich_triton.core.paths import PROJECT
from ocr_eval import phrases
from ocr_eval.pages import upright

IMAGES: Final = PROJECT / "tests/data/images"
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
PREVIEW: Final = 1440
NOISE: Final = 4
"""Standard deviation, of 255."""
SMALLEST: Final = 200
"""What has a shorter side is no photo."""
EVERY: Final = 3
"""One page in three: all scripts and conditions at a third of the time."""


@dataclass(frozen=True)
class Sample:
    """One request: an image or a text."""

    name: str
    image: bytes | None = None
    text: str | None = None


def from_files(paths: Iterable[Path]) -> list[Sample]:
    """Read images; of a folder all in it, by name. Raises OSError."""
    samples = []
    for path in paths:
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
        samples += [Sample(file.name, image=file.read_bytes()) for file in files]
    return samples


def pages() -> list[Sample]:
    """Return every third page of the OCR exam that is the right way up. Raises `FontsMissingError`.

    A page on its side is read twice, and by stock not at all: what it takes says nothing in a comparison.
    """
    return [Sample(page.name, image=page.jpeg) for number, page in enumerate(upright()) if number % EVERY == 0]


def previews() -> list[Sample]:
    """Return the project's images as Immich sends photos: previews with a shorter side of 1440, as JPEG of 80 %.

    With the noise of a camera, without which they would be a third of the size on the wire, and of the work to decode.
    """
    random_numbers = np.random.default_rng(0)
    found = []
    for path in sorted(path for path in IMAGES.iterdir() if path.suffix in SUFFIXES):
        image = Image.open(path).convert("RGB")
        if min(image.size) < SMALLEST:
            continue
        factor = PREVIEW / min(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
        noisy = np.asarray(image) + random_numbers.normal(0, NOISE, (image.height, image.width, 1))
        found.append(Sample(path.name, image=_jpeg(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))))
    return found


def queries(count: int, *, seed: int | str) -> list[Sample]:
    """Return *count* different search queries, Chinese and English in turn; another *seed* gives others."""
    rng = random.Random(seed)  # noqa: S311 - nothing here is secret
    found: dict[str, None] = {}
    while len(found) < count:
        pool = phrases.SIMPLIFIED if len(found) % 2 else phrases.ENGLISH
        found[f"{rng.choice(pool)} {rng.randint(0, 10**6)}"] = None
    return [Sample(f"query {number}", text=text) for number, text in enumerate(found)]


def odd_sizes(count: int, *, seed: int) -> list[Sample]:
    """Return *count* crops of the project's images, no two of the same size: each makes new tensor shapes."""
    rng = random.Random(seed)  # noqa: S311 - nothing here is secret
    sources = [Image.open(path).convert("RGB") for path in sorted(IMAGES.iterdir()) if path.suffix in SUFFIXES]
    sources = [image for image in sources if min(image.size) >= SMALLEST]
    made: dict[tuple[int, int], Sample] = {}
    while len(made) < count:
        image = rng.choice(sources)
        size = rng.randint(160, image.width), rng.randint(160, image.height)
        if size not in made:
            left, top = rng.randint(0, image.width - size[0]), rng.randint(0, image.height - size[1])
            crop = image.crop((left, top, left + size[0], top + size[1]))
            made[size] = Sample(f"{size[0]}x{size[1]}", image=_jpeg(crop))
    return list(made.values())


def weightless(kilobytes: int) -> Sample:
    """Return an image that costs a pipeline nothing to speak of, at the size on the wire of a real preview.

    A JPEG of 16x16 pixels, followed by bytes that a decoder ignores: what is left to measure is the transport.
    """
    noise = np.random.default_rng(0).bytes(kilobytes * 1000)
    return Sample(f"16x16 in {kilobytes} kB", image=_jpeg(Image.new("RGB", (16, 16), "white")) + noise)


def total_bytes(samples: Sequence[Sample]) -> int:
    """Return the bytes of all images."""
    return sum(len(sample.image or b"") for sample in samples)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
