"""What the CLIP pipelines know about the encoders beside them in the model repository, and the calls to these."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Call = Callable[[str, Mapping[str, Array], Sequence[str]], list[Array]]
"""``bls.call``, or anything that behaves like it: model, inputs, names of outputs → outputs."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class EncoderError(RuntimeError):
    """The encoder that a request names cannot answer it: a fault of the server, never of the request."""


@dataclass(frozen=True)
class Encoder:
    """An exported encoder, as its ``export.json`` describes it."""

    name: str
    folder: Path
    image_size: int
    """Side of the square image in pixels; of the image encoder, also where this is the text encoder of the pair."""
    fingerprint: int
    """Of its weights; the encoder gives it out with every embedding."""


class Encoders:
    """The encoders of the model repository *repository*, read again when an export replaced them."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._known: dict[str, tuple[tuple[int, int], Encoder]] = {}

    def find(self, name: str) -> Encoder:
        """Return the encoder *name* as it lies on the disk now. Raises `EncoderError`."""
        # It becomes part of a path.
        if not _NAME.fullmatch(name):
            raise EncoderError(f"the request names no encoder (parameter encoder: {name!r})")
        folder = self._repository / name
        path = folder / "export.json"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._known.get(name)
            if known and known[0] == stamp:
                return known[1]
            record = json.loads(path.read_text(encoding="utf-8"))
            encoder = Encoder(name, folder, int(record["image_size"]), int(record["fingerprint"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EncoderError(
                f"encoder {name} has no usable {path}: {error!r}; run immich-triton export clip again"
            ) from error
        self._known[name] = (stamp, encoder)
        return encoder


def embed(call: Call, encoder: Encoder, name: str, inputs: Array) -> list[npt.NDArray[np.float32] | EncoderError]:
    """Run *encoder* once on the batch *inputs*, its tensor *name*; return for each item its embedding float32 [D].

    An item whose embedding is not finite gets an error instead. Raises `EncoderError` when the encoder that Triton has
    in memory is not the one on the disk: after an export Triton goes on with the old weights until it is restarted, and
    the vectors of two models must never be mixed.
    """
    embeddings, fingerprints = call(encoder.name, {name: inputs}, ["EMBEDDING", "FINGERPRINT"])
    if embeddings.ndim != 2 or len(embeddings) != len(inputs):
        raise EncoderError(f"encoder {encoder.name} gave shape {embeddings.shape} for a batch of {len(inputs)}")
    if not (fingerprints == encoder.fingerprint).all():
        raise EncoderError(f"encoder {encoder.name} in memory has other weights than in its folder: restart Triton")
    broken = EncoderError(f"encoder {encoder.name} gave NaN or infinity")
    # Copies: a view of one row would keep the whole batch alive, and the server's shared memory with it.
    return [np.array(row, np.float32) if np.isfinite(row).all() else broken for row in embeddings]
