"""What ``immich-triton export clip`` asks of the export environment: as JSON, since the two run different Pythons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOT_EQUAL: Final = 3
"""Exit status: the ONNX models do not equal the original."""


@dataclass(frozen=True)
class Job:
    """What to export: *weights* is a checkpoint file, or None for random ones made from *seed*.

    *fingerprint* (31 bits) comes out of the model with every embedding. *external_data* forces a file of weights
    beside the model, which is used anyway for what protobuf cannot hold; *external_visual* does so for the image
    encoder alone, whose file OpenVINO maps into memory and lets go.
    """

    model: str
    folder: str
    precision: str
    fingerprint: int
    weights: str | None = None
    seed: int = 0
    external_data: bool = False
    external_visual: bool = False
