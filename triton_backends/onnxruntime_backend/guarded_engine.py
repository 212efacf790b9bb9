"""A model that answers only while the file of weights beside it is as it was loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxruntime_backend.engines import Array, Engine, TensorInfo
from onnxruntime_backend.weights_file import WeightsFile


class GuardedEngine:
    """*engine*, and *weights* that it has mapped into memory."""

    def __init__(self, engine: Engine, weights: WeightsFile) -> None:
        self._engine = engine
        self._weights = weights

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        """What the model takes."""
        return self._engine.inputs

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        """What the model gives."""
        return self._engine.outputs

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute *outputs*. Raises `RuntimeError` when the weights may be others by now."""
        values = self._engine.run(outputs, feed)
        # Afterwards: whatever was read meanwhile was read before this.
        self._weights.expect_as_loaded()
        return values

    def release(self) -> None:
        """Give back memory that the next run can have anew."""
        self._engine.release()

    def close(self) -> None:
        """Free what the model holds."""
        self._engine.close()
        self._weights.close()
