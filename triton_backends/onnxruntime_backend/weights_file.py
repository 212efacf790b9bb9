"""A file of weights beside a model belongs to that model, and to no other export's: the model names its SHA-256.

A fingerprint in the graph tells which weights computed an embedding only while these are in the graph. Of two exports
mixed by hand one would answer with the other's weights, and nobody would see it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from immich_pipelines.onnx_metadata import WEIGHTS_FILE, metadata_props
from onnxruntime_backend.settings import ConfigError


def check(model: Path) -> None:
    """Raise `ConfigError` when the file ``model.onnx.data`` beside ``model.onnx`` is not the one that *model* names.

    A model that names none, by an earlier export or without such a file, passes.
    """
    data = model.with_name(f"{model.name}.data")
    if not data.is_file() or (expected := metadata_props(model).get(WEIGHTS_FILE)) is None:
        return
    with data.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ConfigError(
            f"'{data}' has other weights than '{model.name}' was exported with; export the model again, or copy both"
        )
