"""The OCR pipeline: image bytes to boxes and texts in reading order.

The networks are asynchronous functions, so that this runs in Triton around in-server calls and in a test around any
session object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from immich_pipelines.decode import MAX_PIXELS, Decode, decode_rgb
from immich_pipelines.errors import BadInput
from immich_pipelines.ocr_batches import Limits, batches
from immich_pipelines.ocr_ctc import Decoder, Text
from immich_pipelines.ocr_detection import Boxes, find_boxes, on_canvas, placement
from immich_pipelines.ocr_order import reading_order
from immich_pipelines.ocr_recognition import cut_line
from immich_pipelines.ocr_second_look import second_look
from immich_pipelines.ocr_turned import read_turned
from immich_pipelines.ocr_variants import settled
from immich_pipelines.shapes import Size

Array = npt.NDArray[Any]

Detector = Callable[[Array], Awaitable[Array]]
"""A page, uint8 [1, H, W, 3] in RGB, to text probabilities float32 [1, 1, H, W]."""

Recognizer = Callable[[Array], Awaitable[Sequence[Array]]]
"""float32 [N, 3, 48, W] to the class int [N, T] and probability float32 [N, T] of each CTC step, and, of an export that
has them, the probabilities float32 [N, T, K] of other classes: see `ocr_variants.Table`."""

MAX_RESOLUTION: Final = 736
"""Immich's default for the shorter side in detection."""


@dataclass(frozen=True)
class Knobs:
    """What a request may set; the defaults are Immich's."""

    detection_min_score: float = 0.5
    recognition_min_score: float = 0.8
    max_resolution: int = MAX_RESOLUTION
    recognition: bool = True
    """False: boxes alone are wanted."""

    def __post_init__(self) -> None:
        """Raise `BadInput` on a resolution that no page can have."""
        if self.max_resolution < 1:
            raise BadInput(f"max_resolution must be at least 1, got {self.max_resolution}")


@dataclass(frozen=True)
class Networks:
    """The two networks, the dictionary of the second, which lines it takes at a time, and how many calls at once.

    *canvases*: the sizes of a page that the detector has sessions for; none: it takes every size.
    """

    detect: Detector
    recognize: Recognizer
    decode: Decoder
    limits: Limits = field(default_factory=Limits)
    max_calls: int = 4
    canvases: Sequence[Size] = ()


@dataclass(frozen=True)
class Page:
    """What was read, in reading order.

    ``boxes`` float32 [N, 8]: x and y of TL, TR, BR, BL in 0..1 of the page. ``texts`` has N entries, or none when only
    boxes were asked for. ``size``: height and width of the image. ``left_out``: how many more boxes there may be, on a
    page of very many.
    """

    boxes: Array
    box_scores: Array
    texts: list[str]
    text_scores: Array
    size: tuple[int, int]
    left_out: int = 0


async def read(
    data: bytes, knobs: Knobs, networks: Networks, *, max_pixels: int = MAX_PIXELS, decode: Decode = decode_rgb
) -> Page:
    """Find and read the text in the image *data*. Raises `BadInput` when it is no image."""
    # In a thread: the other images of the batch go on meanwhile.
    pixels = await asyncio.to_thread(decode, data, max_pixels=max_pixels)
    size = pixels.shape[0], pixels.shape[1]
    boxes = await detect(pixels, knobs, networks.detect, networks.canvases)
    if not knobs.recognition:
        return _page(boxes, [], np.zeros(0, np.float32), size)
    minimum = knobs.recognition_min_score
    lines = [cut_line(pixels, box) for box in boxes.points]
    read_lines = partial(_recognize, networks=networks)
    texts = await read_lines(lines)
    page = await read_turned(pixels, boxes.points, lines, texts, minimum, read_lines)
    kept = [index for index, text in enumerate(page.texts) if text.words.strip() and text.score > minimum]
    if page.quarters:
        kept = [kept[index] for index in reading_order(boxes.points[kept], page.quarters)]
    # As they were read: what is no longer the first reading was turned.
    images = [lines[index] if page.texts[index] is texts[index] else lines[index][::-1, ::-1] for index in kept]
    found = await second_look(images, [page.texts[index] for index in kept], read_lines)
    return _page(
        Boxes(boxes.points[kept], boxes.scores[kept], boxes.left_out),
        settled([(text.words, text.choices) for text in found]),
        np.array([text.score for text in found], np.float32),
        size,
    )


async def detect(pixels: Array, knobs: Knobs, network: Detector, canvases: Sequence[Size] = ()) -> Boxes:
    """Return the text boxes of *pixels* (uint8 [height, width, 3], RGB), in pixels and in reading order."""
    height, width = pixels.shape[:2]
    place = placement(height, width, knobs.max_resolution, canvases)
    if place is None:
        return Boxes.none()
    probabilities = await network(on_canvas(pixels, place))
    probabilities = probabilities[:, :, : place.page[0], : place.page[1]]
    boxes = find_boxes(probabilities, (height, width), knobs.detection_min_score)
    order = reading_order(boxes.points)
    return Boxes(boxes.points[order], boxes.scores[order], boxes.left_out)


async def _recognize(lines: Sequence[Array], networks: Networks) -> list[Text]:
    found = [Text("", 0.0)] * len(lines)
    waiting = batches(lines, networks.limits)

    async def one_after_the_other() -> None:
        for batch in waiting:
            steps = await networks.recognize(batch.images)
            for line, result in zip(batch.lines, networks.decode(*steps), strict=True):
                found[line] = result

    # Several calls at once keep every copy of the network busy; not all at once, which would fill the shared memory.
    # The next batch is made ready meanwhile.
    await asyncio.gather(*(one_after_the_other() for _ in range(networks.max_calls)))
    return found


def _page(boxes: Boxes, texts: list[str], text_scores: Array, size: tuple[int, int]) -> Page:
    height, width = size
    normalised = np.clip(boxes.points / np.array([width, height], np.float32), 0, 1)
    return Page(normalised.reshape(-1, 8).astype(np.float32), boxes.scores, texts, text_scores, size, boxes.left_out)
