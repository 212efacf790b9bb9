"""What is asked of Triton, and what may go wrong.

Errors, by cause::

    TritonError
    ├── BadInput         the image or text itself; never retried, harms nobody else          → 400
    ├── Unavailable      Triton did not come back, or did not answer, within the deadline    → 503
    ├── Refused          Triton wants another key: a person must correct the configuration   → 503
    ├── WrongWeights     Triton does not prove that it answers with the route's weights       → 503
    └── ServerFault      Triton failed on this request again and again, or answers garbage   → 500
        └── Poison       a model's process died over this request, and again once it was new → 500
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from immich_triton.triton.faults import FaultKind

if TYPE_CHECKING:
    from immich_triton.ml.routes import Parameter, Pipeline


class TritonError(Exception):
    """A call to Triton did not give an answer."""


class BadInput(TritonError):  # noqa: N818 - as the pipelines call it
    """The pipeline refused the image or the text."""


class Unavailable(TritonError):  # noqa: N818 - HTTP's word for it
    """No answer within the deadline."""


class Refused(TritonError):  # noqa: N818 - HTTP's word for it
    """Triton does not take the key (or the lack of one)."""


class WrongWeights(TritonError):  # noqa: N818 - the counterpart of BadInput
    """The answer is of other weights than the route's, or does not say of which: a person must correct that."""


class ServerFault(TritonError):  # noqa: N818 - the counterpart of BadInput
    """Triton failed, was not reachable, or answered something else than promised.

    *kind* says how (`FaultKind`), *model* which model's process was lost, or is not loaded, where that is known;
    *renewed*: Triton says that it started the process again by itself.
    """

    def __init__(self, message: str, *, kind: FaultKind = "garbage", model: str = "", renewed: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.model = model
        self.renewed = renewed

    @property
    def answered(self) -> bool:
        """Whether Triton answered, so that the fault may lie in how it treats this very request."""
        return self.kind in ("status", "garbage")


class Poison(ServerFault):
    """A request that takes a model's process down each time it is worked on."""


@dataclass(frozen=True)
class Call:
    """One request to a pipeline: input *tensor* with *payload*, request *parameters*, the *outputs* wanted."""

    pipeline: Pipeline
    tensor: str
    payload: bytes = field(repr=False)
    outputs: Sequence[str]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
