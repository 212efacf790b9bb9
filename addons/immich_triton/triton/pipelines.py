"""What the client knows of a pipeline: its name, what must be ready behind it, what goes with every request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Parameter = str | int | bool
"""What a Triton request parameter may be."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline model in Triton: the Immich *types* it answers, and what the gateway sends along.

    ``models`` are the ONNX models that it calls: the route is ready when they are. ``parameters`` become Triton
    request parameters of every call. ``fingerprint`` is the number by which the encoder's weights are known
    (`immich_triton.triton.weights`), given out with every embedding; None where the route does not say it.
    """

    name: str
    types: Sequence[str]
    models: Sequence[str]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    fingerprint: int | None = None

    @property
    def all_models(self) -> tuple[str, ...]:
        """What must be ready in Triton: a pipeline reports ready while a model behind it is not."""
        return (self.name, *self.models)
