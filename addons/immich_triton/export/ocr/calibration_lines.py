"""What the recogniser is given when the pipeline reads the calibration pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from immich_pipelines.decode import MAX_PIXELS, decode_rgb
from immich_pipelines.ocr import Knobs, detect
from immich_pipelines.ocr_batches import Limits, batches
from immich_pipelines.ocr_recognition import cut_line
from immich_triton.export.sessions import cpu_session

Array = npt.NDArray[Any]


class Lines(NamedTuple):
    """Batches of lines for the recogniser, float32 [N, 3, 48, W]: *upright*, and the same *turned* on their heads.

    As the pipeline reads what it did not understand. What a recogniser sees in turned lines is up to four times larger.
    """

    upright: list[Array]
    turned: list[Array]


def calibration_lines(detector: Path, pages: Sequence[bytes]) -> Lines:
    """Find the lines of the JPEG files *pages* with the ONNX file *detector*, and return what the recogniser gets."""
    session = cpu_session(detector)
    lines: list[Array] = []

    async def network(page: Array) -> Array:
        (probabilities,) = session.run(["text"], {"x": page})
        found: Array = probabilities
        return found

    for page in pages:
        pixels = decode_rgb(page, max_pixels=MAX_PIXELS)
        boxes = asyncio.run(detect(pixels, Knobs(), network))
        lines += [cut_line(pixels, box) for box in boxes.points]
    turned = [line[::-1, ::-1] for line in lines]
    return Lines(*([batch.images for batch in batches(each, Limits())] for each in (lines, turned)))
