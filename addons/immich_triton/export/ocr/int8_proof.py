"""Proof, at export time, that a recogniser reads in int8 what it reads in floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from immich_pipelines import onnx_metadata
from immich_pipelines.ocr_ctc import OUTPUTS, Decoder
from immich_triton.export.ocr.proof import ProofError
from immich_triton.export.sessions import cpu_session

Array = npt.NDArray[Any]

LEAST_LINES: Final = 0.9
"""Least share of lines that must say the same. What differs are lines in doubt; how well they are read tells the
evaluation (``scripts/lab/eval_ocr.py``) alone."""


@dataclass(frozen=True)
class Int8Proof:
    """How many lines say the same in both: *same* of *all* that say anything in floats."""

    same: int
    all: int

    def __str__(self) -> str:
        """Return one phrase for the terminal."""
        return f"{self.same:,} of {self.all:,} lines the same"


def prove_recognizer(floats: bytes, rebuilt: Path, batches: Sequence[Array]) -> Int8Proof:
    """Compare what the lines of *batches* say for the ONNX models *floats* and *rebuilt*. Raises `ProofError`."""
    before, after = cpu_session(floats), cpu_session(rebuilt, as_written=onnx_metadata.too_wide(rebuilt))
    decode = Decoder.of(rebuilt)
    same = read = 0
    for batch in batches:
        expected, found = (decode(*session.run(OUTPUTS, {"x": batch})) for session in (before, after))
        for one, other in zip(expected, found, strict=True):
            read += bool(one.words)
            same += bool(one.words) and one.words == other.words
    proof = Int8Proof(same, read)
    # Where nothing was read nothing is proven.
    if not read or same < LEAST_LINES * read:
        raise ProofError(f"only {proof}, which have to be {LEAST_LINES:.0%}")
    return proof
