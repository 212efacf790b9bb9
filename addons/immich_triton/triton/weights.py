"""Whether Triton answers CLIP with the very weights that a route names: vectors of two models must never mix.

Every encoder has a *fingerprint*, a number that stands for its weights. An export writes it into the model, where it
comes out with every embedding, and into ``route.toml``. The pipelines hand it on as their output `OUTPUT`, and what
does not equal the route's is no answer. It is an output and not a request parameter, which a pipeline of an older
version would ignore without a word.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immich_triton.triton.inference import Call

if TYPE_CHECKING:
    from immich_triton.triton.pipelines import Pipeline

logger = logging.getLogger(__name__)

OUTPUT: Final = "FINGERPRINT"
"""INT64 [1,1]."""

RECORD: Final = "export.json"
"""Beside each exported model: its origin, and the fingerprint."""

HIGHEST: Final = 2**63 - 1

_IMAGE: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)
"""A PNG of one black pixel."""


def recorded(models: Path, encoder: object, weights_sha256: str) -> int | None:
    """Return the fingerprint of *encoder* as its export recorded it in the repository *models*.

    None when the record is not there, is not readable, or is about other weights than the route's.
    """
    if not isinstance(encoder, str) or Path(encoder).name != encoder:
        return None
    try:
        record = json.loads((models / encoder / RECORD).read_text(encoding="utf-8"))
        fingerprint = record["fingerprint"]
        same = record["weights"]["sha256"] == weights_sha256
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return fingerprint if same and type(fingerprint) is int and 0 <= fingerprint <= HIGHEST else None


def no_proof(pipeline: str, url: str) -> str:
    """Return what is wrong with a pipeline that gives no `OUTPUT`, and what to do."""
    return (
        f"{pipeline} in Triton at {url} does not say which weights it answers with (no output {OUTPUT}), so nothing is "
        "answered: it is of an older version. Update immich-triton on Triton's machine and restart "
        "immich-triton run, or immich-triton triton, there (for another server copy triton_models/clip_image, "
        "triton_models/clip_text and triton_backends/immich_pipelines). A config.pbtxt edited there stays: add "
        f"the output {OUTPUT} (TYPE_INT64, dims [ 1 ]) to that of {pipeline}"
    )


STALE: Final = "has other weights than in its folder"
"""How a pipeline's error says that an export replaced an encoder which Triton has not loaded anew yet."""


def stale(pipeline: str, url: str) -> str:
    """Return what is wrong when Triton goes on with the weights before an export, and what to do."""
    return (
        f"{pipeline} in Triton at {url} has an encoder in memory whose files an export has replaced, so nothing is "
        "answered. immich-triton run and immich-triton triton load it anew within seconds; restart any other Triton"
    )


def question(pipeline: Pipeline) -> Call:
    """Return the smallest request by which *pipeline* shows its weights."""
    if "visual" in pipeline.types:
        return Call(pipeline, "IMAGE", _IMAGE, (OUTPUT,))
    return Call(pipeline, "TEXT", b"a", (OUTPUT,))
