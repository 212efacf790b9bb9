"""A file of weights beside a model belongs to that model, and to no other export's: the model names its SHA-256.

A fingerprint in the graph tells which weights computed an embedding only while these are in the graph. Of two exports
mixed by hand one would answer with the other's weights, and nobody would see it. Nor while it runs: engines map the
file into memory, and see what is written into it.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path
from typing import Final

from immich_pipelines.onnx_metadata import WEIGHTS_FILE, metadata_props
from onnxruntime_backend.settings import ConfigError


class WeightsFile:
    """The file ``model.onnx.data`` beside ``model.onnx`` as it was when the model was loaded; there may be none.

    It is held open: another file of that name, as a new export brings, is not the one that is mapped into memory.
    """

    def __init__(self, model: Path) -> None:
        """Raise `ConfigError` when the file is not the one that *model* names. An earlier export names none."""
        self.path = model.with_name(f"{model.name}.data")
        self.exists = self.path.is_file()
        if not self.exists:
            return
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.close: Final = weakref.finalize(self, os.close, self._descriptor)
        # Before it is read: what is written into it meanwhile is seen afterwards.
        self._as_loaded = self._state()
        expected = metadata_props(model).get(WEIGHTS_FILE)
        if expected is not None and self._sha256() != expected:
            raise ConfigError(
                f"'{self.path}' has other weights than '{model.name}' was exported with; "
                "export the model again, or copy both"
            )

    def expect_as_loaded(self) -> None:
        """Raise `RuntimeError` when the file was written into since: what was computed may be of other weights."""
        if self.exists and self._state() != self._as_loaded:
            raise RuntimeError(f"'{self.path}' was written into after it was loaded; load the model again")

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def _sha256(self) -> str:
        with open(self._descriptor, "rb", closefd=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
