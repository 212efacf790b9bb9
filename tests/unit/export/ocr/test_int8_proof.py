"""A recogniser in int8 has to read what it reads in floats, on one of a few weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from tiny_ocr import recognizer

from immich_triton.export.ocr.int8_proof import prove_recognizer
from immich_triton.export.ocr.models import build_recognizer
from immich_triton.export.ocr.proof import ProofError

LINES = np.ones((2, 3, 48, 64), np.float32)
LINES[:, :, 10:40, 16:24] = -1


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    onnx.save(recognizer(), tmp_path / "source.onnx")
    (tmp_path / "dictionary.txt").write_text("i")
    build_recognizer(tmp_path / "source.onnx", tmp_path / "dictionary.txt", tmp_path / "rec.onnx")
    return tmp_path / "rec.onnx"


def changed(path: Path, name: str, value: npt.ArrayLike) -> bytes:
    """Return what *path* holds, and give it another *value* for a constant, added to what that is."""
    before = path.read_bytes()
    model = onnx.load(path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    was = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((was + value).astype(was.dtype), name))
    onnx.save(model, path)
    return before


def test_a_recogniser_that_reads_the_same_is_proven(rec: Path) -> None:
    assert str(prove_recognizer(rec.read_bytes(), rec, [LINES, LINES[:1]])) == "3 of 3 lines the same"


def test_a_recogniser_that_reads_something_else_is_not_proven(rec: Path) -> None:
    bias = np.zeros(128)
    bias[2] = 100
    floats = changed(rec, "ctc_bias", bias)
    with pytest.raises(ProofError, match="only 0 of 2 lines the same"):
        prove_recognizer(floats, rec, [LINES])


def test_where_nothing_was_read_nothing_is_proven(rec: Path) -> None:
    with pytest.raises(ProofError, match="0 of 0 lines"):
        prove_recognizer(rec.read_bytes(), rec, [np.ones_like(LINES)])
