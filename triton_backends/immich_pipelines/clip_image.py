"""Images to CLIP embeddings: decode and transform in parallel, then one call per encoder for what is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immich_pipelines.clip_encoders import Call, Encoder, Encoders, embed
from immich_pipelines.clip_transform import normalise
from immich_pipelines.decode import MAX_PIXELS
from immich_pipelines.decoding.client import Picture
from immich_pipelines.decoding.pillow import open_rgb, squeeze
from immich_pipelines.large import ordinary_first
from immich_pipelines.stragglers import PATIENCE, in_groups


@dataclass(frozen=True)
class ImageJob:
    """The bytes of an image file, and the encoder that the request names."""

    image: bytes
    encoder: str
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class ImageEmbedding:
    """An embedding float32 [D] of length 1, the size of the decoded image in pixels, and what tells the weights."""

    embedding: npt.NDArray[np.float32]
    height: int
    width: int
    fingerprint: int


@dataclass(frozen=True)
class _Prepared:
    encoder: Encoder
    tensor: npt.NDArray[np.float32]
    height: int
    width: int


Squeeze = Callable[[bytes, int, int], Picture]
"""Decodes a file, of at most so many pixels (the last), and squeezes it to a square with the given side."""


def squeeze_here(data: bytes, side: int, max_pixels: int) -> Picture:
    """Do it in this process."""
    image = open_rgb(data, max_pixels=max_pixels)
    return Picture(np.asarray(squeeze(image, side)), image.height, image.width)


class ClipImage:
    """The pipeline: *call* runs an encoder, *squeeze* decodes up to *threads* images at a time.

    *patience*: see `stragglers`.
    """

    def __init__(
        self,
        encoders: Encoders,
        call: Call,
        threads: int,
        squeeze: Squeeze = squeeze_here,
        patience: float = PATIENCE,
    ) -> None:
        self._squeeze = squeeze
        self._patience = patience
        self._encoders = encoders
        self._call = call
        # They wait for the processes that decode (Pillow releases the GIL, too).
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def run(self, jobs: Sequence[ImageJob]) -> Iterator[tuple[int, ImageEmbedding | Exception]]:
        """Answer *jobs*, as pairs of index and result; an image that cannot be decoded (`BadInput`) fails alone.

        A batch costs one call per encoder, unless some images take far longer to decode than the others.
        """
        ordinary, large = ordinary_first(jobs, lambda job: job.image)
        ordered = [(index, jobs[index]) for index in ordinary + large]
        for ready in in_groups(self._pool, self._prepare, ordered, self._patience):
            groups: dict[Encoder, list[tuple[int, _Prepared]]] = {}
            for index, item in ready:
                if isinstance(item, Exception):
                    yield index, item
                else:
                    groups.setdefault(item.encoder, []).append((index, item))
            for encoder, group in groups.items():
                results = self._embed(encoder, [item for _, item in group])
                yield from zip((index for index, _ in group), results, strict=True)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def _prepare(self, job: ImageJob) -> _Prepared | Exception:
        try:
            encoder = self._encoders.find(job.encoder)
            picture = self._squeeze(job.image, encoder.image_size, job.max_pixels)
            return _Prepared(encoder, normalise(picture.pixels), picture.height, picture.width)
        except Exception as error:  # noqa: BLE001 - becomes the answer of this request alone
            return error

    def _embed(self, encoder: Encoder, group: Sequence[_Prepared]) -> list[ImageEmbedding | Exception]:
        try:
            rows = embed(self._call, encoder, "IMAGE", np.stack([item.tensor for item in group]))
        except Exception as error:  # noqa: BLE001 - becomes the answer of every request of the group
            return [error] * len(group)
        return [
            row if isinstance(row, Exception) else ImageEmbedding(row, item.height, item.width, encoder.fingerprint)
            for row, item in zip(rows, group, strict=True)
        ]
