"""What the client knows of a pipeline: its name, what must be ready behind it, what goes with every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Parameter = str | int | bool
"""What a Triton request parameter may be."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline model in Triton, the ONNX models that it calls, and the parameters that go with every request.

    ``fingerprint`` is the number by which the encoder's weights are known (`immich_triton.triton.weights`);
    None where the route does not say it.
    """

    name: str
    types: tuple[str, ...]
    models: tuple[str, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    fingerprint: int | None = None

    @property
    def all_models(self) -> tuple[str, ...]:
        """What must be ready in Triton: a pipeline reports ready while a model behind it is not."""
        return (self.name, *self.models)
