"""The shape table: which input shapes each network runs in where every session sees one shape only, as on a GPU.

ONNX Runtime on CUDA prepares its kernels anew whenever the shape of the input differs from that of the run before
(microsoft/onnxruntime issue 23006), the batch size included. So an export for a GPU writes a list of shapes into the
config of each network (parameter `PARAMETER`); the backend makes a session for each, and pads batches to the next size;
the OCR pipeline chooses among the canvases and widths of its networks' lists. A config without the parameter takes
every shape as it comes: on a CPU all is as without this table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Final

Shape = tuple[int, ...]
"""Of a network's one input: batch size first, then what an item measures."""
Size = tuple[int, int]
"""Height and width in pixels."""

PARAMETER: Final = "shapes"
"""The key in a ``config.pbtxt``; its value looks like ``1x736x992x3 1x992x736x3``."""

MOST_SESSIONS: Final = 40
"""In all networks of a repository together: each session holds the weights once more, and is prepared at the start."""

MOST_STRETCH: Final = 0.03
"""By how much a side of a page may grow or shrink to fill a canvas. Rounding to multiples of 32 does as much."""

CANVASES: Final[Sequence[Size]] = (
    # The shorter side is 736, Immich's default, and the aspect ratio that of most photos: 4:3, 3:2, 1:1, 16:9.
    (736, 992),
    (992, 736),
    (736, 1088),
    (1088, 736),
    (736, 736),
    (736, 1312),
    (1312, 736),
    # The screens of telephones, 19.5:9 and 20:9.
    (736, 1600),
    (1600, 736),
)
"""Sizes of a page for the text detector, which takes one at a time.

On an H200 four of 1088x736 together take 8.2 ms, one of 736x736 2.1: more at a time take memory and save little.
"""

LINE_HEIGHT: Final = 48
LINES: Final[Mapping[int, Sequence[int]]] = MappingProxyType(
    # Close together where most lines are: the recogniser attends to its padding too. With 320, 480, 640, 960, 1440 and
    # 2240 alone it read three more of 346 lines wrong, without 416 or without 448 one more of 471, in v5+v6 or in v5
    # (scripts/lab/eval_ocr.py --networks). A page has few long lines.
    {
        **dict.fromkeys((192, 256), (8,)),
        **dict.fromkeys((320, 384), (8, 32)),
        **dict.fromkeys((416, 448, 512, 576, 640, 736, 832, 960, 1120, 1344), (8,)),
        **dict.fromkeys((1696, 2240), (4,)),
    }
)
"""Widths of a line for the recogniser, with the batch sizes of each."""

FACE_DETECTOR: Final = (1, 8)
FACE_RECOGNIZER: Final = (1, 8, 32)
CLIP_VISUAL: Final = (1, 8)
CLIP_TEXTUAL: Final = (1, 32)
"""Batch sizes of the networks whose items have one size anyway."""


def detector_shapes() -> list[Shape]:
    """Return the shapes of the text detector, which takes pixels: channels last."""
    return [(1, *size, 3) for size in CANVASES]


def recognizer_shapes() -> list[Shape]:
    """Return the shapes of the recogniser of text lines."""
    return [(batch, 3, LINE_HEIGHT, width) for width, batches in LINES.items() for batch in batches]


def of_batches(batches: Iterable[int], item: Sequence[int]) -> list[Shape]:
    """Return the shapes of a network whose items all measure *item*."""
    return [(batch, *size) for batch, size in product(batches, [tuple(item)])]


def text(shapes: Iterable[Shape]) -> str:
    """Return *shapes* as the value of `PARAMETER`."""
    return " ".join("x".join(map(str, shape)) for shape in shapes)


def parse(value: str) -> tuple[Shape, ...]:
    """Read the value of `PARAMETER`. Raises ValueError, with the piece that is wrong."""
    shapes = []
    for piece in value.split():
        if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})+", piece):
            raise ValueError(
                f"'{piece}' is no shape; shapes look like 8x3x48x320, the batch size first, with spaces between them"
            )
        shapes.append(tuple(map(int, piece.split("x"))))
    if len(set(shapes)) < len(shapes) or len({len(shape) for shape in shapes}) != 1:
        raise ValueError(f"'{value}' must name at least one shape, none twice, and all with as many dimensions")
    return tuple(shapes)


def in_config(config: str) -> tuple[Shape, ...]:
    """Return the shapes that the text of a ``config.pbtxt`` states; none where it leaves them open.

    Raises ValueError when the list is wrong.
    """
    found = re.search(
        rf'^[^#\n]*key:\s*"{PARAMETER}",?\s*value:?\s*\{{\s*string_value:\s*"([^"]*)"', config, re.MULTILINE
    )
    return parse(found[1]) if found else ()


def canvases(shapes: Iterable[Shape]) -> list[Size]:
    """Return the page sizes among a text detector's *shapes*, the smallest first.

    A detector of an earlier export takes channels first.
    """
    sizes = {(one, two) if three == 3 else (two, three) for _, one, two, three in shapes}
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def widths(shapes: Iterable[Shape]) -> list[int]:
    """Return the line widths among a recogniser's *shapes*, the smallest first."""
    return sorted({shape[-1] for shape in shapes})


@dataclass(frozen=True)
class Fit:
    """How a page lies on a canvas: scaled to *page*, at the top left of *canvas*; both are height and width."""

    canvas: Size
    page: Size

    @property
    def padded(self) -> bool:
        """Tell whether the canvas is larger than the page."""
        return self.canvas != self.page


def fit(height: float, width: float, sizes: Sequence[Size]) -> Fit | None:
    """Choose a canvas out of *sizes* for a page of *height* x *width*: one that it fills, else one that it fits on.

    A side that lacks or exceeds at most `MOST_STRETCH` is stretched to the canvas; the rest stays empty. Returns None
    when the page is larger than every canvas.
    """
    found = [Fit(size, (_side(height, size[0]), _side(width, size[1]))) for size in sizes]
    fitting = [each for each in found if each.page[0] <= each.canvas[0] and each.page[1] <= each.canvas[1]]

    def waste(each: Fit) -> tuple[int, float]:
        stretch = abs(each.page[0] / height - 1) + abs(each.page[1] / width - 1)
        return each.canvas[0] * each.canvas[1], stretch

    # What is filled has no empty parts that the network would look at.
    return min((each for each in fitting if not each.padded), key=waste, default=None) or min(
        fitting, key=waste, default=None
    )


def _side(wanted: float, canvas: int) -> int:
    return canvas if abs(canvas / wanted - 1) <= MOST_STRETCH else max(1, round(wanted))
