"""What the config of a network says when it is placed on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from immich_pipelines import shapes as shape_table
from immich_pipelines.shapes import Shape

SOURCES: Final = (__file__, str(shape_table.__file__))
"""The code that determines what is written."""

MIB: Final = 1 << 20

WORKSPACE: Final = {
    "ocr_detector": 1024,
    "ocr_recognizer": 1024,
    "face_detector": 1024,
    "face_recognizer": 1024,
    "clip_visual": 512,
    "clip_textual": 256,
}
"""MiB of GPU memory for what is computed, at most, by kind of network: an estimate from the sizes of the layers."""

_SPARE: Final = 1.25
"""Weights take more than their file where kernels want them in another layout."""


_NO_GRAPHS: Final = "clip_"
"""Encoders of CLIP refuse to be recorded, and are large enough to keep a card busy without: 0.6 ms an image."""


def gpu_parameters(kind: str, shapes: Sequence[Shape], weights: int) -> dict[str, str]:
    """Return the ``parameters`` of a network of *kind* (see `WORKSPACE`) with *weights* bytes in its file.

    ``gpu_mem_limit`` bounds all its sessions together: each holds the weights, and they compute one after the other.
    """
    return {
        # The other searches are slower by far (2), or no faster and longer at the start (0).
        "cudnn_conv_algo_search": "1",
        "arena_extend_strategy": "1",
        "gpu_mem_limit": str(int(len(shapes) * weights * _SPARE) + WORKSPACE[kind] * MIB),
        shape_table.PARAMETER: shape_table.text(shapes),
        **({} if kind.startswith(_NO_GRAPHS) else {"cuda_graphs": "1"}),
    }


def lines(parameters: dict[str, str]) -> str:
    """Return *parameters* as they stand in a ``config.pbtxt``."""
    return "".join(
        f'parameters {{ key: "{key}", value: {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )


COMMENT: Final = (
    "# A session for each of these shapes and no other: a session that sees two prepares its kernels anew each time.\n"
)
