"""The OCR networks as the pipeline calls them inside Triton, and the recogniser's dictionary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from immich_pipelines import shapes
from immich_pipelines.bls import call_async
from immich_pipelines.errors import BadInput
from immich_pipelines.ocr import Networks
from immich_pipelines.ocr_batches import Limits, with_longer
from immich_pipelines.ocr_ctc import OUTPUTS, Decoder
from immich_pipelines.ocr_detection import as_floats

Array = npt.NDArray[Any]


class NetworkPair:
    """Finds detector and recogniser by name in the model repository *models*.

    Dictionaries are kept as long as their ONNX file stays the same, so that a recogniser may be exported anew and
    reloaded under a running pipeline.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._decoders: dict[Path, tuple[int, Decoder]] = {}

    def get(self, detector: str, recognizer: str) -> Networks:
        """Return the two networks. Raises `BadInput` on a name that is no model name, `OSError` without the file."""
        for name in (detector, recognizer):
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name.startswith("."):
                raise BadInput(f"{name!r} is no model name")
        config, detection = self._config(recognizer), self._config(detector)
        return Networks(
            partial(_detect, detector, as_pixels="TYPE_UINT8" in detection),
            partial(_recognize, recognizer, OUTPUTS if f'name: "{OUTPUTS[-1]}"' in config else OUTPUTS[:-1]),
            self._decoder(recognizer),
            _limits(config),
            canvases=shapes.canvases(shapes.in_config(detection)),
        )

    def _config(self, network: str) -> str:
        path = self._models / network / "config.pbtxt"
        # Whether the network is there at all is for Triton to say.
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _decoder(self, recognizer: str) -> Decoder:
        path = max(
            (self._models / recognizer).glob("[0-9]*/model.onnx"), key=lambda file: int(file.parent.name), default=None
        )
        if path is None:
            raise FileNotFoundError(f"{self._models / recognizer} holds no model.onnx; run immich-triton export ocr")
        changed = path.stat().st_mtime_ns
        known = self._decoders.get(path)
        if known is None or known[0] != changed:
            known = self._decoders[path] = changed, Decoder.of(path)
        return known[1]


def _limits(config: str) -> Limits:
    """Return which lines the recogniser with this *config* takes at once."""
    lines = re.search(r"^max_batch_size:\s*(\d+)", config, re.MULTILINE)
    table = shapes.in_config(config)
    return Limits(int(lines[1]) if lines else 1, 0 if table else Limits.columns, with_longer(shapes.widths(table)))


async def _detect(model: str, page: Array, *, as_pixels: bool) -> Array:
    (probabilities,) = await call_async(model, {"x": page if as_pixels else as_floats(page)}, ["text"])
    return probabilities


async def _recognize(model: str, outputs: Sequence[str], images: Array) -> Sequence[Array]:
    return await call_async(model, {"x": images}, outputs)
