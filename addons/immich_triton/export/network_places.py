"""Which networks of a model repository run on a GPU and which on the CPU, and what memory they take there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immich_pipelines import shapes

MIB: Final = 1 << 20
MOST_SESSIONS: Final = shapes.MOST_SESSIONS
DETECTOR, RECOGNIZER = "ocr_det", "ocr_rec"
"""The default networks for text; what exports them needs more to be imported than a look at a repository."""
MOVE: Final = {
    "ocr_": "immich-triton export ocr --gpu",
    "cn_clip_": "immich-triton export clip MODEL --gpu",
    "face_": "immich-triton export faces PACK --gpu --accept-license",
}
"""What moves a network to the GPU, by how its name begins."""
PROCESS_MIB: Final = 600
"""What CUDA, cuDNN and cuBLAS take for each process of a network, whatever that computes: an estimate."""


@dataclass(frozen=True)
class Place:
    """Where the network *name* runs; memory on the GPU in MiB, 0 on the CPU."""

    name: str
    gpu: bool
    sessions: int = 1
    least: int = 0
    """The weights, once for each session, and the process."""
    most: int = 0
    """The config's bound of it all, and the process; as `least` where the config states none."""


def places(models: Path) -> list[Place]:
    """Return the networks in the repository *models*, by name. What cannot be read is left to Triton to refuse."""
    found = []
    for path in sorted(models.glob("[!.]*/config.pbtxt")):
        try:
            config = re.sub(r"#[^\n]*", "", path.read_text(encoding="utf-8"))
            if re.search(r'\bbackend:\s*"onnxruntime"', config):
                found.append(_place(path.parent, config))
        except (OSError, ValueError):
            continue
    return found


def _place(folder: Path, config: str) -> Place:
    if "KIND_GPU" not in config:
        return Place(folder.name, gpu=False)
    sessions = len(shapes.in_config(config)) or 1
    weights = sum(path.stat().st_size for path in folder.glob("[0-9]*/*") if path.is_file())
    least = sessions * weights // MIB + PROCESS_MIB
    limit = re.search(r'key:\s*"gpu_mem_limit",?\s*value:?\s*\{\s*string_value:\s*"(\d+)"', config)
    return Place(folder.name, True, sessions, least, int(limit[1]) // MIB + PROCESS_MIB if limit else least)


def how_to_move(name: str) -> str | None:
    """Return the command that exports the network *name* for a GPU; None for one that is not ours."""
    return next((command for start, command in MOVE.items() if name.startswith(start)), None)


def names(placed: Iterable[Place]) -> str:
    """Return the names of networks as a sentence lists them."""
    return ", ".join(place.name for place in placed)
